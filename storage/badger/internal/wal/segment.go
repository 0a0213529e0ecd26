package wal

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

const (
	segmentSuffix = ".wal"
	tmpSuffix     = ".tmp"
	damagedSuffix = ".damaged"
	lsnDigits     = 20
)

// SegmentInfo describes one segment file.
type SegmentInfo struct {
	Path     string
	FirstLSN uint64 // the LSN that its name holds
	LastLSN  uint64 // FirstLSN-1 while it holds no record
	Bytes    int64
}

func lsnName(lsn uint64, suffix string) string {
	return fmt.Sprintf("%0*d%s", lsnDigits, lsn, suffix)
}

// parseLSNName reads what lsnName wrote and nothing else.
func parseLSNName(name, suffix string) (uint64, bool) {
	digits, ok := strings.CutSuffix(name, suffix)
	if !ok || len(digits) != lsnDigits {
		return 0, false
	}
	lsn, err := strconv.ParseUint(digits, 10, 64)
	return lsn, err == nil && lsnName(lsn, suffix) == name
}

// listing is what a directory holds of one kind of file.
type listing struct {
	files   []SegmentInfo // sorted by FirstLSN; LastLSN is not known yet
	tmp     []string      // left by a crash
	damaged []string      // kept aside by this or an earlier start
}

// list reads dir for files named by LSN with suffix.
func list(dir, suffix string) (listing, error) {
	var l listing
	entries, err := os.ReadDir(dir)
	if err != nil {
		return l, err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if base, rest, ok := strings.Cut(e.Name(), suffix); ok {
			if _, named := parseLSNName(base+suffix, suffix); named && rest == tmpSuffix {
				l.tmp = append(l.tmp, path)
			} else if named && strings.HasPrefix(rest, damagedSuffix) {
				l.damaged = append(l.damaged, path)
			}
		}
		lsn, ok := parseLSNName(e.Name(), suffix)
		if !ok || !e.Type().IsRegular() {
			continue
		}
		info, err := e.Info()
		if err != nil {
			return l, err
		}
		l.files = append(l.files, SegmentInfo{Path: path, FirstLSN: lsn, Bytes: info.Size()})
	}
	slices.SortFunc(l.files, func(a, b SegmentInfo) int {
		if a.FirstLSN < b.FirstLSN {
			return -1
		}
		return 1
	})
	return l, nil
}
