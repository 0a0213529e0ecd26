package wal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

func sectionsOf(seed uint64) [][]byte {
	rnd := rand.New(rand.NewPCG(seed, 0))
	var out [][]byte
	for _, n := range []int{0, 1, 40, 10} {
		p := make([]byte, n)
		for i := range p {
			p[i] = byte(rnd.Uint32())
		}
		out = append(out, p)
	}
	return out
}

func writeSnapshot(t testing.TB, fs fileSystem, dir string, lsn uint64, sections [][]byte) error {
	t.Helper()
	w, err := createSnapshot(fs, dir, lsn)
	if err != nil {
		return err
	}
	for i, p := range sections {
		if err := w.Section(uint8(i+1), p); err != nil {
			return errors.Join(err, w.Abort())
		}
	}
	return w.Commit()
}

func checkSnapshot(t testing.TB, r *SnapshotReader, lsn uint64, sections [][]byte) {
	t.Helper()
	if r == nil || r.LSN() != lsn {
		t.Fatalf("snapshot %+v, want LSN %d", r, lsn)
	}
	for i, want := range sections {
		typ, p, err := r.Next()
		if err != nil || int(typ) != i+1 || !bytes.Equal(p, want) {
			t.Fatalf("section %d: type %d, %d bytes, %v", i, typ, len(p), err)
		}
	}
	if _, _, err := r.Next(); !errors.Is(err, io.EOF) {
		t.Fatalf("after the last section: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestSnapshotRoundTrip(t *testing.T) {
	dir := t.TempDir()
	if r, problems, err := OpenNewestSnapshot(filepath.Join(dir, "none")); r != nil || problems != nil || err != nil {
		t.Fatalf("no directory: %v %v %v", r, problems, err)
	}
	large := [][]byte{bytes.Repeat([]byte("0123456789"), windowBytes/4), {1}, make([]byte, windowBytes)}
	for lsn := uint64(5); lsn < 8; lsn++ {
		if err := writeSnapshot(t, osFS{}, dir, lsn, large); err != nil {
			t.Fatal(err)
		}
	}
	if names := sortedNames(readAll(t, dir)); len(names) != 1 {
		t.Fatalf("older snapshots stayed: %v", names)
	}
	r, problems, err := OpenNewestSnapshot(dir)
	if err != nil || problems != nil {
		t.Fatal(err, problems)
	}
	checkSnapshot(t, r, 7, large)

	w, err := CreateSnapshot(dir, 9)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Section(0, nil); err == nil {
		t.Fatal("type 0 was accepted")
	}
	if err := w.Section(1, make([]byte, MaxSectionBytes+1)); !errors.Is(err, ErrTooLarge) {
		t.Fatalf("got %v", err)
	}
	if err := errors.Join(w.Abort(), w.Abort()); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(); !errors.Is(err, ErrClosed) {
		t.Fatalf("commit after abort: %v", err)
	}
	if names := sortedNames(readAll(t, dir)); len(names) != 1 {
		t.Fatalf("abort left %v", names)
	}
}

// TestSnapshotDamage flips every bit and cuts at every byte of the newest of two:
// the older one is used, the newer one is reported and kept.
func TestSnapshotDamage(t *testing.T) {
	src := t.TempDir()
	if err := writeSnapshot(t, noSyncFS{}, src, 4, sectionsOf(4)); err != nil {
		t.Fatal(err)
	}
	older := readAll(t, src)
	if err := writeSnapshot(t, noSyncFS{}, src, 8, sectionsOf(8)); err != nil {
		t.Fatal(err)
	}
	newName := lsnName(8, snapshotSuffix)
	whole := readAll(t, src)[newName]
	var cases [][]byte
	for bit := range 8 * len(whole) {
		b := slices.Clone(whole)
		b[bit/8] ^= 1 << (bit % 8)
		cases = append(cases, b)
	}
	for n := range whole {
		cases = append(cases, whole[:n])
	}
	cases = append(cases, append(slices.Clone(whole), 0))
	dir := filepath.Join(t.TempDir(), "snap")
	for i, b := range cases {
		older[newName] = b
		older[lsnName(9, snapshotSuffix+tmpSuffix)] = whole
		writeAll(t, dir, older)
		r, problems, err := openNewestSnapshot(noSyncFS{}, dir)
		if err != nil || len(problems) != 1 || problems[0].LSN != 8 || !errors.Is(problems[0].Err, ErrCorrupt) {
			t.Fatalf("case %d: %v %v", i, problems, err)
		}
		checkSnapshot(t, r, 4, sectionsOf(4))
		files := readAll(t, dir)
		if len(files) != 2 || !bytes.Equal(files[filepath.Base(problems[0].Path)], b) {
			t.Fatalf("case %d: %v", i, sortedNames(files))
		}
	}
}

func TestSnapshotNewerVersionIsRefused(t *testing.T) {
	dir := t.TempDir()
	if err := writeSnapshot(t, noSyncFS{}, dir, 4, nil); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, lsnName(4, snapshotSuffix))
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[8] = 2
	binary.LittleEndian.PutUint32(b[20:], checksum(b[:20]))
	if err := os.WriteFile(path, b, filePerm); err != nil {
		t.Fatal(err)
	}
	var v *VersionError
	if _, _, err := OpenNewestSnapshot(dir); !errors.As(err, &v) || v.Found != 2 {
		t.Fatalf("got %v", err)
	}
	if !strings.Contains(v.Error(), "version 2") || !strings.Contains(v.Error(), "version 1") {
		t.Fatalf("message %q", v.Error())
	}
}

// TestSnapshotFaults fails every operation in turn and cuts the power after it:
// there is always a sound snapshot, and after a good Commit it is the new one.
func TestSnapshotFaults(t *testing.T) {
	for fault := range 12 {
		for seed := range uint64(6) {
			dir := filepath.Join(t.TempDir(), "s")
			writeAll(t, dir, nil)
			fs := newLossyFS()
			if err := writeSnapshot(t, fs, dir, 4, sectionsOf(4)); err != nil {
				t.Fatal(err)
			}
			if err := fs.SyncDir(dir); err != nil {
				t.Fatal(err)
			}
			steps := fault
			fs.script = func(string, string) (int, error) {
				if steps--; steps == -1 {
					return 3, syscall.ENOSPC
				}
				return 0, nil
			}
			err := writeSnapshot(t, fs, dir, 8, sectionsOf(8))
			fs.script = nil
			fs.powerCut(t, dir, rand.New(rand.NewPCG(seed, uint64(fault))))
			r, _, oerr := OpenNewestSnapshot(dir)
			if oerr != nil || r == nil {
				t.Fatalf("fault %d: no snapshot: %v", fault, oerr)
			}
			if err == nil && r.LSN() != 8 {
				t.Fatalf("fault %d: committed and not there", fault)
			}
			checkSnapshot(t, r, r.LSN(), sectionsOf(r.LSN()))
		}
	}
}

func TestFreeBytes(t *testing.T) {
	free, total, err := FreeBytes(t.TempDir())
	if err != nil || total == 0 || free > total {
		t.Fatalf("%d of %d, %v", free, total, err)
	}
	if _, _, err := FreeBytes(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Fatal("a missing directory has no free space")
	}
}

// FuzzSnapshot gives arbitrary bytes as the newest of two snapshots: either it is
// sound, or the older one is used and the newer one is put aside and reported.
func FuzzSnapshot(f *testing.F) {
	older, newer := sectionsOf(1), sectionsOf(2)
	files := map[string][]byte{}
	for lsn, s := range map[uint64][][]byte{7: older, 9: newer} {
		dir := f.TempDir() // each alone: a new snapshot removes the older ones
		if err := writeSnapshot(f, noSyncFS{}, dir, lsn, s); err != nil {
			f.Fatal(err)
		}
		maps.Copy(files, readAll(f, dir))
	}
	names := sortedNames(files)
	sound := files[names[1]]
	f.Add(sound)
	f.Add(sound[:len(sound)-3])
	f.Add(append(sound[:30:30], 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := t.TempDir()
		writeAll(t, dir, map[string][]byte{names[0]: files[names[0]], names[1]: b})
		r, problems, err := openNewestSnapshot(noSyncFS{}, dir)
		if err != nil {
			var version *VersionError
			if !errors.As(err, &version) {
				t.Fatal(err)
			}
			return
		}
		switch {
		case len(problems) == 1:
			checkSnapshot(t, r, 7, older)
		case r.LSN() != 9:
			t.Fatalf("snapshot %d without a word about the newer one", r.LSN())
		default:
			for {
				if _, _, err := r.Next(); errors.Is(err, io.EOF) {
					break
				} else if err != nil {
					t.Fatalf("a snapshot that was verified: %v", err)
				}
			}
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
		}
	})
}
