package wal

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// lossyFS passes everything to the operating system and remembers beside it what
// a power cut would leave: bytes that were fsynced, names whose directory was.
// A step of the script, if there is one for the operation, fails it instead.
type lossyFS struct {
	osFS
	live    map[string]*inode
	durable map[string]*inode
	script  func(op, path string) (partial int, err error)
}

type inode struct {
	data   []byte
	synced []byte
}

type lossyFile struct {
	file
	fs   *lossyFS
	path string
	node *inode
}

func newLossyFS() *lossyFS {
	return &lossyFS{live: map[string]*inode{}, durable: map[string]*inode{}}
}

func (fs *lossyFS) fail(op, path string) (int, error) {
	if fs.script == nil {
		return 0, nil
	}
	return fs.script(op, path)
}

func (fs *lossyFS) Create(path string) (file, error) {
	if _, err := fs.fail("create", path); err != nil {
		return nil, err
	}
	f, err := fs.osFS.Create(path)
	if err != nil {
		return nil, err
	}
	n := fs.live[path]
	if n == nil {
		n = &inode{}
		fs.live[path] = n
	}
	n.data = nil
	return &lossyFile{f, fs, path, n}, nil
}

func (fs *lossyFS) OpenAppend(path string) (file, error) {
	f, err := fs.osFS.OpenAppend(path)
	if err != nil {
		return nil, err
	}
	return &lossyFile{f, fs, path, fs.live[path]}, nil
}

func (fs *lossyFS) Rename(from, to string) error {
	if _, err := fs.fail("rename", to); err != nil {
		return err
	}
	if err := fs.osFS.Rename(from, to); err != nil {
		return err
	}
	fs.live[to] = fs.live[from]
	delete(fs.live, from)
	return nil
}

func (fs *lossyFS) Link(from, to string) error {
	if _, err := fs.fail("link", to); err != nil {
		return err
	}
	fs.live[to] = fs.live[from]
	return fs.osFS.Link(from, to)
}

func (fs *lossyFS) Remove(path string) error {
	if _, err := fs.fail("remove", path); err != nil {
		return err
	}
	delete(fs.live, path)
	return fs.osFS.Remove(path)
}

func (fs *lossyFS) SyncDir(dir string) error {
	if _, err := fs.fail("syncdir", dir); err != nil {
		return err
	}
	fs.durable = map[string]*inode{}
	for p, n := range fs.live {
		fs.durable[p] = n
	}
	return nil
}

func (f *lossyFile) Write(b []byte) (int, error) {
	n, err := f.fs.fail("write", f.path)
	if err == nil {
		n = len(b)
	}
	n, werr := f.file.Write(b[:min(n, len(b))])
	f.node.data = append(f.node.data, b[:n]...)
	return n, errors.Join(err, werr)
}

func (f *lossyFile) Sync() error {
	if _, err := f.fs.fail("sync", f.path); err != nil {
		return err
	}
	f.node.synced = append([]byte(nil), f.node.data...)
	return nil
}

func (f *lossyFile) Truncate(size int64) error {
	if _, err := f.fs.fail("truncate", f.path); err != nil {
		return err
	}
	f.node.data = f.node.data[:size]
	return f.file.Truncate(size)
}

// powerCut makes dir what a disk may hold after the power went: durable names,
// perhaps newer ones too; synced bytes, perhaps some that were not, or zeros.
func (fs *lossyFS) powerCut(t testing.TB, dir string, rnd *rand.Rand) {
	t.Helper()
	files := map[string][]byte{}
	names := fs.durable
	if rnd.IntN(2) == 0 {
		names = fs.live
	}
	after := newLossyFS()
	for path, n := range names {
		b := append([]byte(nil), n.synced...)
		if extra := len(n.data) - len(b); extra > 0 {
			part := append([]byte(nil), n.data[len(b):len(b)+rnd.IntN(extra+1)]...)
			if len(part) > 0 && rnd.IntN(3) == 0 {
				clear(part[rnd.IntN(len(part)):])
			}
			b = append(b, part...)
		}
		files[filepath.Base(path)] = b
		node := &inode{data: b, synced: append([]byte(nil), b...)}
		after.live[path], after.durable[path] = node, node
	}
	writeAll(t, dir, files)
	fs.live, fs.durable = after.live, after.durable
}

// TestPowerLoss cuts the power again and again, in the middle of appends, and
// asserts that every acknowledged record is there under SyncAlways, and that the
// control without it does lose some, or the test would prove nothing.
func TestPowerLoss(t *testing.T) {
	lost := map[SyncMode]int{}
	for _, mode := range []SyncMode{SyncAlways, SyncOS} {
		for seed := range uint64(30) {
			lost[mode] += powerLossRun(t, mode, rand.New(rand.NewPCG(seed, 1)))
		}
	}
	if lost[SyncAlways] != 0 {
		t.Fatalf("%d acknowledged records lost", lost[SyncAlways])
	}
	if lost[SyncOS] == 0 {
		t.Fatal("the control lost nothing: the model drops no unsynced bytes")
	}
}

func powerLossRun(t *testing.T, mode SyncMode, rnd *rand.Rand) (lost int) {
	dir := filepath.Join(t.TempDir(), "wal")
	fs := newLossyFS()
	acked := map[uint64]bool{}
	for range 5 {
		fs.script = nil
		l, rep, got := replayed(t, fs, dir, testConfig(mode), 0)
		for _, lsn := range got {
			delete(acked, lsn)
		}
		lost += len(acked)
		clear(acked)
		if mode == SyncAlways && !rep.Clean() {
			t.Fatalf("a power cut is no damage: %+v", rep)
		}
		for _, lsn := range got {
			acked[lsn] = true
		}
		l.cfg.SegmentBytes = 400
		// The cut comes at some step, which then never completes.
		steps := rnd.IntN(60)
		fs.script = func(op, _ string) (int, error) {
			if steps--; steps < 0 {
				return rnd.IntN(64), syscall.EIO
			}
			return 0, nil
		}
		var b Batch
		for {
			group(l, &b, 1+rnd.IntN(3), 20+rnd.IntN(40))
			first, err := l.Append(&b)
			if err != nil {
				break
			}
			for i := range b.Len() {
				acked[first+uint64(i)] = true
			}
		}
		_ = l.Close() // the log is broken, and says so
		fs.powerCut(t, dir, rnd)
	}
	return lost
}

func TestBrokenIsForGood(t *testing.T) {
	for _, op := range []string{"write", "sync", "syncdir"} {
		t.Run(op, func(t *testing.T) {
			fs := newLossyFS()
			dir := t.TempDir()
			l, _, _ := replayed(t, fs, dir, testConfig(SyncAlways), 0)
			appendGroups(t, l, 2, 2, 50)
			if op == "syncdir" {
				l.cfg.SegmentBytes = 1 // the next group begins a segment
			}
			failed := false
			fs.script = func(o, _ string) (int, error) {
				if o == op && !failed {
					failed = true
					return 7, syscall.EIO
				}
				if failed && o == "write" {
					t.Error("written to after a failure")
				}
				return 0, nil
			}
			var b Batch
			group(l, &b, 2, 50)
			for range 3 {
				if _, err := l.Append(&b); !errors.Is(err, ErrBroken) || !errors.Is(err, syscall.EIO) {
					t.Fatalf("got %v, want ErrBroken with its cause", err)
				}
			}
			if err := l.Sync(); !errors.Is(err, ErrBroken) {
				t.Fatalf("sync: %v", err)
			}
			if l.LastLSN() != 4 {
				t.Fatalf("last LSN %d", l.LastLSN())
			}
			if err := l.Close(); !errors.Is(err, ErrBroken) {
				t.Fatalf("close: %v", err)
			}
			fs.script = nil
			l, rep, got := replayed(t, fs, dir, testConfig(SyncAlways), 0)
			if len(got) < 4 || !rep.Clean() {
				t.Fatalf("replayed %v: %+v", got, rep)
			}
			appendGroups(t, l, 1, 1, 50)
			closeLog(t, l)
		})
	}
}

// TestFullDiskRecovers: at every operation that may meet a full disk, the group
// is refused whole, and the log goes on as soon as there is room.
func TestFullDiskRecovers(t *testing.T) {
	for _, c := range []struct {
		name, op string
		partial  int
		rotate   bool
	}{
		{"nothing written", "write", 0, false},
		{"group cut short", "write", 30, false},
		{"header cut short", "write", 30, true},
		{"no file", "create", 0, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			fs := newLossyFS()
			dir := t.TempDir()
			l, _, _ := replayed(t, fs, dir, testConfig(SyncAlways), 0)
			appendGroups(t, l, 2, 2, 50)
			if c.rotate {
				l.cfg.SegmentBytes = 1
			}
			fs.script = func(op, _ string) (int, error) {
				if op == c.op {
					return c.partial, syscall.ENOSPC
				}
				return 0, nil
			}
			var b Batch
			group(l, &b, 2, 50)
			for range 3 {
				if _, err := l.Append(&b); !errors.Is(err, ErrNoSpace) || errors.Is(err, ErrBroken) {
					t.Fatalf("got %v, want ErrNoSpace", err)
				}
				checkSize(t, l)
			}
			fs.script = nil
			if first, err := l.Append(&b); err != nil || first != 5 {
				t.Fatalf("with room again: %d, %v", first, err)
			}
			checkSize(t, l)
			closeLog(t, l)
			l, rep, got := replayed(t, fs, dir, testConfig(SyncAlways), 0)
			closeLog(t, l)
			if fmt.Sprint(got) != "[1 2 3 4 5 6]" || !rep.Clean() || rep.TornBytes != 0 {
				t.Fatalf("replayed %v: %+v", got, rep)
			}
		})
	}
}

func TestFullDiskThatCannotBeCutIsBroken(t *testing.T) {
	fs := newLossyFS()
	l, _, _ := replayed(t, fs, t.TempDir(), testConfig(SyncOS), 0)
	appendGroups(t, l, 1, 1, 50)
	fs.script = func(op, _ string) (int, error) {
		switch op {
		case "write":
			return 9, syscall.ENOSPC
		case "truncate":
			return 0, syscall.EIO
		}
		return 0, nil
	}
	var b Batch
	group(l, &b, 1, 50)
	if _, err := l.Append(&b); !errors.Is(err, ErrBroken) {
		t.Fatalf("got %v, want ErrBroken", err)
	}
	if err := l.Close(); !errors.Is(err, ErrBroken) {
		t.Fatalf("close: %v", err)
	}
}

// TestRepairThatFails: with a full disk the damaged segment stays, the log opens,
// and the next start repairs it.
func TestRepairThatFails(t *testing.T) {
	files, written := smallLog(t, 5)
	names := sortedNames(files)
	files[names[0]][headerBytes+25] ^= 1
	for _, op := range []string{"create", "write", "sync", "rename"} {
		t.Run(op, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "wal")
			writeAll(t, dir, files)
			fs := newLossyFS()
			fs.script = func(o, _ string) (int, error) {
				if o == op {
					return 0, syscall.ENOSPC
				}
				return 0, nil
			}
			l, rep, got := replayed(t, fs, dir, testConfig(SyncOS), 0)
			closeLog(t, l)
			if len(rep.RepairErrors) != 1 || rep.LostRecords != 1 || uint64(len(got)) != written-1 {
				t.Fatalf("replayed %d: %+v", len(got), rep)
			}
			if _, err := os.Stat(filepath.Join(dir, names[0]+tmpSuffix)); !errors.Is(err, os.ErrNotExist) {
				t.Fatalf("temporary file left behind: %v", err)
			}
			checkAccount(t, dir, op, written)
		})
	}
}

// TestRepairPowerLoss cuts the power at each step of a repair.
func TestRepairPowerLoss(t *testing.T) {
	files, written := smallLog(t, 5)
	files[sortedNames(files)[0]][headerBytes+25] ^= 1
	for cut := range 12 {
		for seed := range uint64(4) {
			dir := filepath.Join(t.TempDir(), "wal")
			writeAll(t, dir, files)
			fs := newLossyFS()
			for name, b := range files {
				n := &inode{data: b, synced: b}
				fs.live[filepath.Join(dir, name)], fs.durable[filepath.Join(dir, name)] = n, n
			}
			steps := cut
			fs.script = func(string, string) (int, error) {
				if steps--; steps < 0 {
					return 5, syscall.EIO
				}
				return 0, nil
			}
			if l, _, err := open(fs, dir, testConfig(SyncAlways), 0, quiet(), func(Record) error { return nil }); err == nil {
				_ = l.Close() // fails by the script
			}
			fs.powerCut(t, dir, rand.New(rand.NewPCG(seed, uint64(cut))))
			l, rep, got := replayed(t, osFS{}, dir, testConfig(SyncOS), 0)
			closeLog(t, l)
			if uint64(len(got)) != written-1 || rep.LostRecords+rep.KnownLost != 1 {
				t.Fatalf("cut at step %d: replayed %d: %+v", cut, len(got), rep)
			}
		}
	}
}
