//go:build race

package wal

// raceEnabled: the detector allocates by itself.
const raceEnabled = true
