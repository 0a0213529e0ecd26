package wal

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// noSyncFS leaves out fsync, which tests that open thousands of logs cannot wait for.
type noSyncFS struct{ osFS }

type noSyncFile struct{ file }

func (noSyncFile) Sync() error        { return nil }
func (noSyncFS) SyncDir(string) error { return nil }
func wrapNoSync(f file, err error) (file, error) {
	if err != nil {
		return nil, err
	}
	return noSyncFile{f}, nil
}
func (fs noSyncFS) Create(p string) (file, error)     { return wrapNoSync(fs.osFS.Create(p)) }
func (fs noSyncFS) OpenAppend(p string) (file, error) { return wrapNoSync(fs.osFS.OpenAppend(p)) }

// smallLog writes groups of two records into segments of two groups and returns
// the files' contents by name and the number of records.
func smallLog(t testing.TB, groups int) (map[string][]byte, uint64) {
	t.Helper()
	dir := t.TempDir()
	l, _, _ := replayed(t, noSyncFS{}, dir, testConfig(SyncOS), 0)
	l.cfg.SegmentBytes = headerBytes + 80
	appendGroups(t, l, groups, 2, 20)
	last := l.LastLSN()
	closeLog(t, l)
	return readAll(t, dir), last
}

func readAll(t testing.TB, dir string) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if files[e.Name()], err = os.ReadFile(filepath.Join(dir, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

// writeAll makes dir hold exactly files.
func writeAll(t testing.TB, dir string, files map[string][]byte) {
	t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir, dirPerm); err != nil {
		t.Fatal(err)
	}
	for name, b := range files {
		if err := os.WriteFile(filepath.Join(dir, name), b, filePerm); err != nil {
			t.Fatal(err)
		}
	}
}

func sortedNames(files map[string][]byte) []string {
	var names []string
	for n := range files {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// checkAccount asserts that no record vanished unreported, that a second start
// tells the same story without alarm, and that the log goes on from there.
func checkAccount(t *testing.T, dir, what string, written uint64) RecoveryReport {
	t.Helper()
	cfg := testConfig(SyncOS)
	l, rep, got := replayed(t, noSyncFS{}, dir, cfg, 0)
	unknown := rep.TornFile != ""
	for _, d := range rep.Damages {
		unknown = unknown || d.LostUnknown
	}
	account := uint64(len(got)) + rep.LostRecords + rep.KnownLost
	if account > written || (account < written && !unknown) {
		t.Fatalf("%s: replayed %d + lost %d of %d: %+v", what, len(got), rep.LostRecords, written, rep)
	}
	if len(rep.RepairErrors) > 0 {
		t.Fatalf("%s: %v", what, rep.RepairErrors)
	}
	checkSize(t, l)
	appendGroups(t, l, 1, 1, 30)
	added := l.LastLSN()
	closeLog(t, l)

	l, again, got2 := replayed(t, noSyncFS{}, dir, cfg, 0)
	if !slices.Equal(append(got, added), got2) {
		t.Fatalf("%s: replayed %v, then %v with %d added", what, got, got2, added)
	}
	if !again.Clean() || again.TornBytes != 0 || again.KnownLost != rep.LostRecords+rep.KnownLost {
		t.Fatalf("%s: second start reports %+v after %+v", what, again, rep)
	}
	closeLog(t, l)
	return rep
}

func TestCutAtEveryByte(t *testing.T) {
	files, written := smallLog(t, 5)
	names := sortedNames(files)
	const frame = frameHeaderBytes + 20
	dir := filepath.Join(t.TempDir(), "wal")
	for _, name := range names {
		whole := files[name]
		for n := range len(whole) {
			files[name] = whole[:n]
			writeAll(t, dir, files)
			last := name == names[len(names)-1]
			there := written
			if last && n >= headerBytes && (n-headerBytes)%frame == 0 {
				// What ends between two records is whole: no log can tell.
				there = written - uint64(len(whole)-n)/frame
			}
			rep := checkAccount(t, dir, fmt.Sprintf("%s cut to %d", name, n), there)
			if last && !rep.Clean() {
				t.Fatalf("%s cut to %d: a torn tail is no damage: %+v", name, n, rep)
			}
			if !last && rep.LostRecords == 0 {
				t.Fatalf("%s cut to %d: nothing reported", name, n)
			}
		}
		files[name] = whole
	}
}

func TestFlipEveryBit(t *testing.T) {
	files, written := smallLog(t, 3)
	dir := filepath.Join(t.TempDir(), "wal")
	step := 1
	if testing.Short() {
		step = 7
	}
	for _, name := range sortedNames(files) {
		whole := files[name]
		for bit := 0; bit < 8*len(whole); bit += step {
			flipped := slices.Clone(whole)
			flipped[bit/8] ^= 1 << (bit % 8)
			files[name] = flipped
			writeAll(t, dir, files)
			what := fmt.Sprintf("%s bit %d", name, bit)
			rep := checkAccount(t, dir, what, written)
			if rep.Clean() && rep.TornBytes == 0 {
				t.Fatalf("%s: not reported", what)
			}
			if rep.LostRecords > 1 {
				t.Fatalf("%s: one bit took %d records", what, rep.LostRecords)
			}
			if bit < 8*headerBytes && rep.LostRecords != 0 {
				t.Fatalf("%s: the other header copy was not used", what)
			}
			if !rep.Clean() && len(rep.Kept) != 1 {
				t.Fatalf("%s: damaged file not kept: %+v", what, rep)
			}
		}
		files[name] = whole
	}
}

func TestDamagePatterns(t *testing.T) {
	files, written := smallLog(t, 8)
	names := sortedNames(files)
	if len(names) != 4 || written != 16 {
		t.Fatalf("%d segments with %d records", len(names), written)
	}
	const frame = frameHeaderBytes + 20
	zero := func(from, to int) func([]byte) []byte {
		return func(b []byte) []byte { clear(b[from:to]); return b }
	}
	for _, c := range []struct {
		name    string
		segment int
		damage  func([]byte) []byte // nil result removes the file
		lost    uint64
		torn    bool
		unknown bool
	}{
		{"missing first segment", 0, func([]byte) []byte { return nil }, 4, false, false},
		{"missing middle segment", 1, func([]byte) []byte { return nil }, 4, false, false},
		{"empty middle segment", 1, func(b []byte) []byte { return b[:0] }, 4, false, false},
		{"zeroed middle segment", 2, zero(0, headerBytes+4*frame), 4, false, false},
		{"both headers gone, middle", 1, zero(0, headerBytes), 4, false, false},
		{"both headers gone, last", 3, zero(0, headerBytes), 0, false, true},
		{"all zero last segment", 3, zero(0, headerBytes+4*frame), 0, true, false},
		{"two records of a middle segment", 1, zero(headerBytes+frame, headerBytes+3*frame), 2, false, false},
		{"two records of the last segment", 3, zero(headerBytes+frame, headerBytes+3*frame), 2, false, false},
		{"two records in two places", 2, func(b []byte) []byte {
			b[headerBytes+5] ^= 1
			b[headerBytes+2*frame+20] ^= 1
			return b
		}, 2, false, false},
		{"record cut out at its bounds", 1, func(b []byte) []byte {
			return slices.Delete(b, headerBytes+frame, headerBytes+2*frame)
		}, 1, false, false},
		{"garbage between records", 1, func(b []byte) []byte {
			return slices.Insert(b, headerBytes+frame, []byte("0123456789abcdefghijklmnopqrstuvw")...)
		}, 0, false, false},
		{"garbage at a middle segment's end", 1, func(b []byte) []byte { return append(b, 1, 2, 3) }, 0, false, false},
		{"record repeated", 1, func(b []byte) []byte {
			return append(b, b[headerBytes:headerBytes+frame]...)
		}, 0, false, false},
		{"garbage at the end", 3, func(b []byte) []byte { return append(b, 1, 2, 3) }, 0, true, false},
		{"damage and a torn tail", 3, func(b []byte) []byte {
			b[headerBytes+10] ^= 4
			return b[:len(b)-1]
		}, 1, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "wal")
			damaged := map[string][]byte{}
			for i, n := range names {
				b := slices.Clone(files[n])
				if i == c.segment {
					b = c.damage(b)
				}
				if b != nil || i != c.segment {
					damaged[n] = b
				}
			}
			writeAll(t, dir, damaged)
			if c.name == "missing first segment" {
				_, rep, got := replayed(t, noSyncFS{}, dir, testConfig(SyncOS), 0)
				if rep.LostRecords != 4 || len(got) != 12 {
					t.Fatalf("%+v", rep)
				}
				return
			}
			rep := checkAccount(t, dir, c.name, written)
			if rep.LostRecords != c.lost || (rep.TornBytes > 0) != c.torn {
				t.Fatalf("want %d lost, torn %v: %+v", c.lost, c.torn, rep)
			}
			unknown := slices.ContainsFunc(rep.Damages, func(d Damage) bool { return d.LostUnknown })
			if unknown != c.unknown {
				t.Fatalf("want unknown %v: %+v", c.unknown, rep)
			}
			if rep.Clean() != c.torn && c.lost == 0 {
				t.Fatalf("damage or torn tail, not both: %+v", rep)
			}
		})
	}
}

// TestForgedRecord: a client can put any bytes into a payload. When damage makes
// recovery search the payload, what looks like a record must not become one.
func TestForgedRecord(t *testing.T) {
	dir := t.TempDir()
	l, _, _ := replayed(t, noSyncFS{}, dir, testConfig(SyncOS), 0)
	var forged, b Batch
	forged.Add(TypeSeries, payloadFor(2, 16))
	forged.seal(2, 0) // the segment's salt is what a client does not know
	b.Add(TypeSeries, append(payloadFor(1, 8), forged.buf...))
	b.Add(TypeSamples, payloadFor(2, 40))
	if _, err := l.Append(&b); err != nil {
		t.Fatal(err)
	}
	path := l.Segments()[0].Path
	closeLog(t, l)
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	raw[headerBytes+frameHeaderBytes] ^= 1
	if err := os.WriteFile(path, raw, filePerm); err != nil {
		t.Fatal(err)
	}
	l, rep, got := replayed(t, noSyncFS{}, dir, testConfig(SyncOS), 0)
	closeLog(t, l)
	if fmt.Sprint(got) != "[2]" || rep.LostRecords != 1 {
		t.Fatalf("replayed %v: %+v", got, rep)
	}
}

// TestLargeRecord crosses the reader's window, sound and damaged.
func TestLargeRecord(t *testing.T) {
	dir := t.TempDir()
	l, _, _ := replayed(t, noSyncFS{}, dir, testConfig(SyncOS), 0)
	l.cfg.SegmentBytes = 1 << 30
	appendGroups(t, l, 1, 3, 3*windowBytes)
	appendGroups(t, l, 1, 2, 100)
	path := l.Segments()[0].Path
	closeLog(t, l)
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	raw[headerBytes+4*windowBytes] ^= 8
	if err := os.WriteFile(path, raw, filePerm); err != nil {
		t.Fatal(err)
	}
	rep := checkAccount(t, dir, "large", 5)
	if rep.LostRecords != 1 || rep.Damages[0].FirstLost != 2 {
		t.Fatalf("%+v", rep)
	}
}

// FuzzRecover gives Open arbitrary bytes as a middle and as a last segment.
func FuzzRecover(f *testing.F) {
	files, _ := smallLog(f, 4)
	names := sortedNames(files)
	f.Add([]byte{}, true)
	f.Add(files[names[0]], false)
	f.Add(files[names[1]], true)
	f.Add(append(files[names[0]][:80:80], 0, 0, 0), false)
	f.Fuzz(func(t *testing.T, b []byte, last bool) {
		dir := filepath.Join(t.TempDir(), "wal")
		name := names[0]
		if last {
			name = names[1]
		}
		writeAll(t, dir, map[string][]byte{names[0]: files[names[0]], names[1]: files[names[1]], name: b})
		var lsns []uint64
		l, rep, err := open(noSyncFS{}, dir, testConfig(SyncOS), 0, quiet(), func(r Record) error {
			lsns = append(lsns, r.LSN)
			return nil
		})
		if err != nil {
			return // another version, or a renamed segment
		}
		if !slices.IsSorted(lsns) || uint64(len(lsns)) != rep.Records {
			t.Fatalf("replayed %v: %+v", lsns, rep)
		}
		if !last && rep.Records+rep.LostRecords+rep.KnownLost < 8 {
			t.Fatalf("records vanished: %+v", rep)
		}
		appendGroups(t, l, 1, 1, 10)
		added := l.LastLSN()
		closeLog(t, l)
		l, again, err := open(noSyncFS{}, dir, testConfig(SyncOS), 0, quiet(), func(r Record) error {
			if len(lsns) > 0 && lsns[0] == r.LSN {
				lsns = lsns[1:]
			} else if r.LSN != added {
				t.Fatalf("record %d was not there before", r.LSN)
			}
			return nil
		})
		if err != nil || len(lsns) != 0 || !again.Clean() {
			t.Fatalf("second start: %v, %v missing, %+v", err, lsns, again)
		}
		closeLog(t, l)
	})
}
