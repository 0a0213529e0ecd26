package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// damagedArchives backs a running server up and damages the archive again and again:
// luminate restore must refuse every one.
func damagedArchives(ctx context.Context, c *chaos, o *outcome) error {
	l := newLedger(2, 40)
	defer l.client.CloseIdleConnections()
	s, err := c.server(filepath.Join(c.dir, "data"), nil, "--admin.enable")
	if err != nil {
		return err
	}
	if err := c.startReady(ctx, s, o); err != nil {
		return err
	}
	if err := writeFor(ctx, l, s, time.Second); err != nil {
		return err
	}
	archive := filepath.Join(c.dir, "whole.backup")
	if out, err := c.command(ctx, "backup", "--url", s.url, "--out", archive); err != nil {
		return fmt.Errorf("backup: %w: %s", err, out)
	}
	if err := s.stop(syscall.SIGTERM); err != nil {
		return err
	}
	good, err := os.ReadFile(archive)
	if err != nil {
		return err
	}
	if out, err := c.command(ctx, "restore", "--from", archive, "--storage.badger.dir", filepath.Join(c.dir, "restored")); err != nil {
		return fmt.Errorf("restore the whole archive: %w: %s", err, out)
	}
	o.set("archiveBytes", float64(len(good)))
	for i := range c.o.archives {
		bad, what := c.damage(good, i)
		path, to := filepath.Join(c.dir, "bad.backup"), filepath.Join(c.dir, "bad-"+strconv.Itoa(i))
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			return err
		}
		out, err := c.command(ctx, "restore", "--from", path, "--storage.badger.dir", to)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		o.add("damaged", 1)
		if err != nil {
			o.add("refused", 1)
		}
		o.expect(err != nil, "an archive with %s was restored", what)
		o.expect(!crashed.Match(out), "%s: restore fell over: %.300s", what, out)
		if err := os.RemoveAll(to); err != nil {
			return err
		}
	}
	return nil
}

// damage returns a copy with one bit flipped, and every tenth cut short instead.
func (c *chaos) damage(good []byte, i int) (bad []byte, what string) {
	at := c.rng.IntN(len(good))
	if i%10 == 9 {
		return good[:at], fmt.Sprintf("its end cut off at byte %d", at)
	}
	bad = bytes.Clone(good)
	bit := c.rng.IntN(8)
	bad[at] ^= 1 << bit
	return bad, fmt.Sprintf("byte %d bit %d flipped", at, bit)
}

// command runs the binary to its end.
func (c *chaos) command(ctx context.Context, args ...string) ([]byte, error) {
	return exec.CommandContext(ctx, c.binary, args...).CombinedOutput()
}
