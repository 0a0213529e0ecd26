//go:build race

package block

// raceEnabled: sync.Pool drops entries on purpose then, so that counting allocations means nothing.
const raceEnabled = true
