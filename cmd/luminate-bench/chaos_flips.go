package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"syscall"
	"time"
)

// told matches the lines of a log that tell of damage.
var told = regexp.MustCompile(`level=(?:ERROR|WARN).*(?i:damage|lost|loss|corrupt|checksum|makes no sense|torn|cannot be opened|not registered)|tornBytes=[1-9]`)

// crashed matches what a program that fell over leaves behind.
var crashed = regexp.MustCompile(`(?m)^(?:panic:|fatal error:|unexpected fault address|SIG[A-Z]+:)`)

// bitFlips builds a store, stops it in order and by kill -9, and flips one bit in
// a fresh copy of one of the two, again and again.
func bitFlips(ctx context.Context, c *chaos, o *outcome) error {
	l := newLedger(3, 40)
	defer l.client.CloseIdleConnections()
	stores, err := c.flipStores(ctx, l, o)
	if err != nil {
		return err
	}
	o.set("samples", float64(l.samples()))
	for i := range c.o.flips {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := c.flipOne(ctx, l, o, stores[i%len(stores)], i); err != nil {
			return fmt.Errorf("flip %d: %w", i, err)
		}
	}
	return nil
}

// flipStores returns the folders of a store after kill -9 and after an orderly
// stop: one with its newest samples in the log, one with them in a snapshot.
func (c *chaos) flipStores(ctx context.Context, l *ledger, o *outcome) ([]string, error) {
	data, killed := filepath.Join(c.dir, "data"), filepath.Join(c.dir, "killed")
	s, err := c.server(data, nil, "--storage.badger.headMaxBytes", "1048576", "--storage.badger.snapshotInterval", "1s")
	if err != nil {
		return nil, err
	}
	// Two restarts make tables of memtables.
	for range 2 {
		if err := c.startReady(ctx, s, o); err != nil {
			return nil, err
		}
		if err := writeFor(ctx, l, s, 400*time.Millisecond); err != nil {
			return nil, err
		}
		if err := s.stop(syscall.SIGTERM); err != nil {
			return nil, err
		}
	}
	if err := c.startReady(ctx, s, o); err != nil {
		return nil, err
	}
	if err := writeFor(ctx, l, s, 300*time.Millisecond); err != nil {
		return nil, err
	}
	if err := s.stop(syscall.SIGKILL); err != nil {
		return nil, err
	}
	if err := os.CopyFS(killed, os.DirFS(data)); err != nil {
		return nil, err
	}
	if err := c.startReady(ctx, s, o); err != nil {
		return nil, err
	}
	if err := c.verify(ctx, l, s, o, true); err != nil {
		return nil, err
	}
	return []string{killed, data}, s.stop(syscall.SIGTERM)
}

// flipOne damages a copy and judges what the server then says.
func (c *chaos) flipOne(ctx context.Context, l *ledger, o *outcome, store string, i int) error {
	dir := filepath.Join(c.dir, fmt.Sprintf("flip-%d", i))
	work := filepath.Join(dir, "data")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.CopyFS(work, os.DirFS(store)); err != nil {
		return err
	}
	where, err := c.flip(work)
	if err != nil {
		return err
	}
	s, err := c.server(work, nil)
	if err != nil {
		return err
	}
	s.dir = dir
	o.add("flips", 1)
	var v verdict
	_, startErr := s.start(ctx)
	if startErr == nil {
		v = l.check(ctx, s.url, true)
		if s.alive() {
			// A damaged store may be unable to save everything at its end.
			_ = s.stop(syscall.SIGTERM)
		}
	}
	return judgeFlip(o, filepath.Join(dir, "server.log"), where, v, startErr)
}

// judgeFlip sorts the outcome of a flip: whole, told, refused, or a broken promise.
func judgeFlip(o *outcome, logFile, where string, v verdict, startErr error) error {
	log, err := os.ReadFile(logFile)
	if err != nil {
		return err
	}
	o.expect(!crashed.Match(log), "%s: the server fell over: %s", where, crashed.Find(log))
	o.expect(v.wrong == 0, "%s: %d wrong values", where, v.wrong)
	said := told.Match(log)
	switch {
	case startErr != nil:
		o.add("refusedToStart", 1)
		o.expect(len(strings.TrimSpace(string(log))) > 0, "%s: the server ended without a word", where)
	case v.err != nil:
		o.add("toldByQuery", 1)
	case v.missing > 0 && said:
		o.add("toldByLog", 1)
	case v.missing > 0:
		o.add("silent", 1)
		o.expect(false, "%s: %d samples are missing and not a word", where, v.missing)
	default:
		o.add("nothingLost", 1)
	}
	return nil
}

// flip flips one bit of one file, each file as likely as the others, among the
// bytes that are on the disk: some files are mapped larger than they are.
func (c *chaos) flip(dir string) (where string, err error) {
	used := map[string]int64{}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if n := len(strings.TrimRight(string(b), "\x00")); n > 0 {
			used[path] = int64(n)
		}
		return nil
	})
	if err != nil || len(used) == 0 {
		return "", errors.Join(err, errors.New("no file to damage"))
	}
	paths := make([]string, 0, len(used))
	for p := range used {
		paths = append(paths, p)
	}
	sort.Strings(paths)
	path := paths[c.rng.IntN(len(paths))]
	at, bit := c.rng.Int64N(used[path]), c.rng.IntN(8)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	var b [1]byte
	if _, err = f.ReadAt(b[:], at); err == nil {
		b[0] ^= 1 << bit
		_, err = f.WriteAt(b[:], at)
	}
	rel, _ := filepath.Rel(dir, path)
	return fmt.Sprintf("%s byte %d of %d bit %d", rel, at, used[path], bit), errors.Join(err, f.Close())
}
