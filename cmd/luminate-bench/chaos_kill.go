package main

import (
	"context"
	"fmt"
	"path/filepath"
	"syscall"
	"time"
)

// readyWithin is how soon a server must serve again.
const readyWithin = 10 * time.Second

// killRounds kills the server under load and checks after each start.
func killRounds(ctx context.Context, c *chaos, o *outcome) error {
	l := newLedger(4, 40)
	defer l.client.CloseIdleConnections()
	// Snapshots once a second: kills meet them too.
	s, err := c.server(filepath.Join(c.dir, "data"), nil, "--storage.badger.snapshotInterval", "1s")
	if err != nil {
		return err
	}
	for round := range c.o.rounds {
		if err := c.startReady(ctx, s, o); err != nil {
			return fmt.Errorf("round %d: %w", round, err)
		}
		if err := c.verify(ctx, l, s, o, false); err != nil {
			_ = s.stop(syscall.SIGKILL)
			return fmt.Errorf("round %d: %w", round, err)
		}
		if err := c.writeAndKill(ctx, l, s); err != nil {
			return fmt.Errorf("round %d: %w", round, err)
		}
		o.add("kills", 1)
	}
	if err := c.startReady(ctx, s, o); err != nil {
		return err
	}
	err = c.verify(ctx, l, s, o, true)
	o.set("acknowledgedSamples", float64(l.samples()))
	if stopErr := s.stop(syscall.SIGTERM); err == nil {
		err = stopErr
	}
	return err
}

// startReady starts the server and notes how long it took.
func (c *chaos) startReady(ctx context.Context, s *server, o *outcome) error {
	took, err := s.start(ctx)
	if err != nil {
		return err
	}
	o.max("readySecondsMax", took.Seconds())
	o.expect(took <= readyWithin, "ready after %s", took.Round(time.Millisecond))
	return nil
}

// verify reads back the ledger and notes what is missing or wrong.
func (c *chaos) verify(ctx context.Context, l *ledger, s *server, o *outcome, all bool) error {
	v := l.check(ctx, s.url, all)
	o.add("samplesReadBack", float64(v.read))
	o.add("lost", float64(v.missing))
	o.add("wrong", float64(v.wrong))
	o.expect(v.missing == 0 && v.wrong == 0, "%d lost, %d wrong of %d acknowledged", v.missing, v.wrong, l.samples())
	return v.err
}

// writeAndKill writes for a random while and kills the server in the midst.
func (c *chaos) writeAndKill(ctx context.Context, l *ledger, s *server) error {
	writing, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- l.write(writing, s.url) }()
	wait(ctx, time.Duration(200+c.rng.IntN(800))*time.Millisecond)
	if err := s.stop(syscall.SIGKILL); err != nil {
		return err
	}
	cancel()
	return <-done
}
