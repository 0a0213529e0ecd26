package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

const (
	diskMiB     = 512
	diskFloor   = 192 << 20 // storage.badger.minFreeBytes in that disk
	fullRound   = 20 * time.Second
	recoverTime = 10 * time.Second
)

// fullDisk fills a small disk, first to below the floor by the server's own
// writes, then wholly with ballast, and frees it again.
func fullDisk(ctx context.Context, c *chaos, o *outcome) (err error) {
	img, err := mountImage(c.dir, diskMiB)
	if err != nil {
		return err
	}
	defer func() { c.killAll(); err = errors.Join(err, img.unmount()) }()
	l := newLedger(4, 100)
	defer l.client.CloseIdleConnections()
	s, err := c.server(filepath.Join(img.mount, "data"), nil, "--storage.badger.minFreeBytes", fmt.Sprint(diskFloor))
	if err != nil {
		return err
	}
	if err := c.startReady(ctx, s, o); err != nil {
		return err
	}
	if err := writeFor(ctx, l, s, time.Second); err != nil {
		return err
	}
	// Below the floor, then not a byte left: the ballast is an ordinary neighbour.
	for _, leave := range []int64{diskFloor * 3 / 4, 0} {
		if err := c.fillAndFree(ctx, l, s, o, img.mount, leave); err != nil {
			return err
		}
	}
	if err := s.stop(syscall.SIGKILL); err != nil {
		return err
	}
	if err := c.startReady(ctx, s, o); err != nil {
		return err
	}
	o.set("acknowledgedSamples", float64(l.samples()))
	return c.verify(ctx, l, s, o, true)
}

// fillAndFree fills the disk until so many bytes are left, checks that the server
// refuses and reads, frees the disk, and waits until it writes again.
func (c *chaos) fillAndFree(ctx context.Context, l *ledger, s *server, o *outcome, dir string, leave int64) error {
	ballast := filepath.Join(dir, "ballast")
	stop := make(chan error, 1)
	writing, cancel := context.WithTimeout(ctx, fullRound)
	defer cancel()
	refusedBefore := l.refused.Load()
	go func() { stop <- l.write(writing, s.url) }()
	if err := fill(ballast, leave); err != nil {
		return err
	}
	for writing.Err() == nil && l.refused.Load() == refusedBefore && s.alive() {
		wait(writing, 20*time.Millisecond)
	}
	refused := l.refused.Load() - refusedBefore
	wait(ctx, 2*time.Second) // go on writing against the full disk
	cancel()
	if err := <-stop; err != nil {
		o.expect(false, "%d bytes left: %v", leave, err)
	}
	o.expect(s.alive(), "the server ended with %d bytes left on its disk", leave)
	if !s.alive() {
		return errors.New("the server ended on a full disk")
	}
	o.expect(refused > 0, "no write was refused within %s with %d bytes left", fullRound, leave)
	o.add("refusals503", float64(l.refused.Load()-refusedBefore))
	if err := c.verify(ctx, l, s, o, false); err != nil {
		o.expect(false, "read with %d bytes left: %v", leave, err)
	}
	if err := os.Remove(ballast); err != nil {
		return err
	}
	return awaitWrites(ctx, l, s, o)
}

// awaitWrites notes how long it takes until a write is acknowledged again.
func awaitWrites(ctx context.Context, l *ledger, s *server, o *outcome) error {
	freed := time.Now()
	for time.Since(freed) < 6*recoverTime {
		status, err := l.writeOne(ctx, s.url, 0)
		if err != nil {
			return fmt.Errorf("write after space was freed: %w", err)
		}
		if status/100 == 2 {
			l.acked[0]++
			o.max("recoverSecondsMax", time.Since(freed).Seconds())
			o.expect(time.Since(freed) <= recoverTime, "writes came back %s after space was freed", time.Since(freed).Round(time.Millisecond))
			return nil
		}
		wait(ctx, 50*time.Millisecond)
	}
	return fmt.Errorf("writes did not come back within %s of free space", 6*recoverTime)
}

func writeFor(ctx context.Context, l *ledger, s *server, d time.Duration) error {
	writing, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	return l.write(writing, s.url)
}

// fill writes a file until so many bytes of its disk are left.
func fill(path string, leave int64) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	block := make([]byte, 1<<20)
	for i := range block {
		block[i] = byte(i * 7)
	}
	for len(block) > 0 {
		var st syscall.Statfs_t
		if err := syscall.Statfs(filepath.Dir(path), &st); err != nil {
			return errors.Join(err, f.Close())
		}
		if int64(st.Bavail)*st.Bsize < leave+int64(len(block)) && leave > 0 {
			break
		}
		switch _, err := f.Write(block); {
		case errors.Is(err, syscall.ENOSPC) && len(block) > 4096:
			block = block[:len(block)/2] // the last bytes, too
		case errors.Is(err, syscall.ENOSPC):
			block = nil
		case err != nil:
			return errors.Join(err, f.Close())
		}
	}
	return f.Close()
}
