package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func testConfig(mode SyncMode) Config {
	c := DefaultConfig()
	c.Sync, c.SegmentBytes = mode, minSegmentBytes
	return c
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// payloadFor is a payload that tells its own LSN, so that a record handed back
// under another LSN is seen.
func payloadFor(lsn uint64, n int) []byte {
	p := binary.LittleEndian.AppendUint64(nil, lsn)
	for len(p) < n {
		p = append(p, byte(lsn)+byte(len(p)))
	}
	return p
}

// replayed opens the log and returns the LSNs it hands back, checking payloads.
func replayed(t testing.TB, fs fileSystem, dir string, cfg Config, after uint64) (*Log, RecoveryReport, []uint64) {
	t.Helper()
	var got []uint64
	l, rep, err := open(fs, dir, cfg, after, quiet(), func(r Record) error {
		if len(r.Payload) < 8 || binary.LittleEndian.Uint64(r.Payload) != r.LSN {
			return fmt.Errorf("record %d holds another's payload", r.LSN)
		}
		if len(got) > 0 && got[len(got)-1] >= r.LSN {
			return fmt.Errorf("record %d after %d", r.LSN, got[len(got)-1])
		}
		got = append(got, r.LSN)
		return nil
	})
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	return l, rep, got
}

// group builds a batch of n records that begin at the log's next LSN.
func group(l *Log, b *Batch, n, size int) {
	b.Reset()
	for i := range n {
		b.Add(TypeSamples, payloadFor(l.LastLSN()+1+uint64(i), size))
	}
}

func appendGroups(t testing.TB, l *Log, groups, n, size int) {
	t.Helper()
	var b Batch
	for range groups {
		group(l, &b, n, size)
		if _, err := l.Append(&b); err != nil {
			t.Fatalf("append: %v", err)
		}
	}
}

func closeLog(t testing.TB, l *Log) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
}

func TestAppendAndReplay(t *testing.T) {
	for _, mode := range []SyncMode{SyncOS, SyncAlways} {
		t.Run(string(mode), func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "a", "wal")
			var want uint64
			for round := range 4 {
				l, rep, got := replayed(t, osFS{}, dir, testConfig(mode), 0)
				if uint64(len(got)) != want || rep.Records != want || !rep.Clean() || rep.TornBytes != 0 {
					t.Fatalf("round %d: replayed %d of %d, %+v", round, len(got), want, rep)
				}
				appendGroups(t, l, 30, 3, 100)
				want += 90
				if l.LastLSN() != want {
					t.Fatalf("last LSN %d, want %d", l.LastLSN(), want)
				}
				checkSize(t, l)
				closeLog(t, l)
			}
		})
	}
}

// checkSize compares what the log says of itself with the directory.
func checkSize(t testing.TB, l *Log) {
	t.Helper()
	var sum int64
	for _, s := range l.Segments() {
		st, err := os.Stat(s.Path)
		if err != nil {
			t.Fatal(err)
		}
		if st.Size() != s.Bytes {
			t.Fatalf("%s has %d bytes, log says %d", s.Path, st.Size(), s.Bytes)
		}
		sum += st.Size()
	}
	if l.Size() != sum {
		t.Fatalf("size %d, files hold %d", l.Size(), sum)
	}
}

func TestTruncateBefore(t *testing.T) {
	dir := t.TempDir()
	l, _, _ := replayed(t, osFS{}, dir, testConfig(SyncAlways), 0)
	appendGroups(t, l, 100, 2, 300)
	segs := l.Segments()
	if len(segs) < 5 {
		t.Fatalf("%d segments, want several", len(segs))
	}
	cut := segs[2].FirstLSN
	if err := l.TruncateBefore(cut + 1); err != nil {
		t.Fatal(err)
	}
	if got := l.Segments()[0].FirstLSN; got != cut {
		t.Fatalf("log begins at %d, want %d", got, cut)
	}
	checkSize(t, l)
	closeLog(t, l)

	l, rep, got := replayed(t, osFS{}, dir, testConfig(SyncAlways), cut)
	if !rep.Clean() || got[0] != cut || rep.FirstLSN != cut || rep.LastLSN != 200 {
		t.Fatalf("first %d, report %+v", got[0], rep)
	}
	if err := l.TruncateBefore(1 << 40); err != nil {
		t.Fatal(err)
	}
	if n := len(l.Segments()); n != 1 {
		t.Fatalf("%d segments, the newest must stay", n)
	}
	closeLog(t, l)

	// A caller that holds less than the log left out is told.
	l, rep, _ = replayed(t, osFS{}, dir, testConfig(SyncAlways), 0)
	first := l.Segments()[0].FirstLSN
	if rep.LostRecords != first-1 || rep.Damages[0].FirstLost != 1 {
		t.Fatalf("log begins at %d: %+v", first, rep)
	}
	closeLog(t, l)
}

func TestAdvanceLSN(t *testing.T) {
	dir := t.TempDir()
	l, _, _ := replayed(t, osFS{}, dir, testConfig(SyncOS), 0)
	appendGroups(t, l, 1, 3, 20)
	l.AdvanceLSN(2)
	l.AdvanceLSN(100)
	l.AdvanceLSN(200)
	appendGroups(t, l, 1, 2, 20)
	if l.LastLSN() != 202 {
		t.Fatalf("last LSN %d, want 202", l.LastLSN())
	}
	checkSize(t, l)
	closeLog(t, l)
	l, rep, got := replayed(t, osFS{}, dir, testConfig(SyncOS), 300)
	if fmt.Sprint(got) != "[1 2 3 201 202]" || !rep.Clean() || rep.KnownLost != 0 {
		t.Fatalf("replayed %v, %+v", got, rep)
	}
	if l.LastLSN() != 300 {
		t.Fatalf("last LSN %d, want what the caller holds, 300", l.LastLSN())
	}
	closeLog(t, l)
}

func TestBounds(t *testing.T) {
	cfg := testConfig(SyncOS)
	cfg.MaxRecordBytes = 10
	l, _, _ := replayed(t, osFS{}, t.TempDir(), cfg, 0)
	var b Batch
	b.Add(TypeDelete, payloadFor(1, 8))
	b.Add(TypeDelete, payloadFor(2, 11))
	if _, err := l.Append(&b); !errors.Is(err, ErrTooLarge) {
		t.Fatalf("got %v, want ErrTooLarge", err)
	}
	b.Reset()
	if first, err := l.Append(&b); err != nil || first != 1 {
		t.Fatalf("empty batch: %d, %v", first, err)
	}
	closeLog(t, l)
	if _, err := l.Append(&b); !errors.Is(err, ErrClosed) {
		t.Fatalf("got %v, want ErrClosed", err)
	}
	bad := Config{Sync: "never", SegmentBytes: 1, MaxRecordBytes: -1}
	if _, _, err := Open(t.TempDir(), bad, 0, quiet(), nil); err == nil {
		t.Fatal("a bad configuration was accepted")
	}
}

func TestReplayErrorEndsOpen(t *testing.T) {
	dir := t.TempDir()
	l, _, _ := replayed(t, osFS{}, dir, testConfig(SyncOS), 0)
	appendGroups(t, l, 1, 3, 20)
	closeLog(t, l)
	stop := errors.New("stop")
	_, rep, err := Open(dir, testConfig(SyncOS), 0, quiet(), func(Record) error { return stop })
	if !errors.Is(err, stop) || rep.Records != 1 {
		t.Fatalf("got %v after %d records", err, rep.Records)
	}
}

func TestNewerVersionIsRefused(t *testing.T) {
	dir := t.TempDir()
	l, _, _ := replayed(t, osFS{}, dir, testConfig(SyncOS), 0)
	appendGroups(t, l, 1, 1, 20)
	path := l.Segments()[0].Path
	closeLog(t, l)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		c := b[i*headerCopyBytes:][:headerCopyBytes]
		c[8] = 7
		binary.LittleEndian.PutUint32(c[28:], checksum(c[:28]))
	}
	if err := os.WriteFile(path, b, filePerm); err != nil {
		t.Fatal(err)
	}
	var v *VersionError
	_, _, err = Open(dir, testConfig(SyncOS), 0, quiet(), func(Record) error { t.Fatal("replayed"); return nil })
	if !errors.As(err, &v) || v.Found != 7 || v.Supported != segmentVersion || v.File != path {
		t.Fatalf("got %v", err)
	}
}
func checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }
