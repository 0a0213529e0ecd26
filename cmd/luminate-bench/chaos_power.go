package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The ioctl that makes ext4 stop as if the power had gone: what is not on the
// disk stays off it. From the kernel's fs/ext4/ext4.h.
const (
	ext4Shutdown           = 0x8004587d
	ext4ShutdownNoLogFlush = 2
)

// image is an ext4 file system in a file, mounted through a loop device.
type image struct{ file, mount string }

// mountImage makes and mounts an image of so many MiB; where that is impossible
// the error is errNotRun.
func mountImage(dir string, mib int) (*image, error) {
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("%w: mounting an image needs root", errNotRun)
	}
	img := &image{file: filepath.Join(dir, "disk.ext4"), mount: filepath.Join(dir, "mnt")}
	if err := os.MkdirAll(img.mount, 0o700); err != nil {
		return nil, err
	}
	f, err := os.Create(img.file)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(f.Truncate(int64(mib)<<20), f.Close()); err != nil {
		return nil, err
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", img.file).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w: mkfs.ext4: %w: %.200s", errNotRun, err, out)
	}
	if err := img.attach(); err != nil {
		return nil, fmt.Errorf("%w: %w", errNotRun, err)
	}
	return img, nil
}

func (i *image) attach() error {
	if out, err := exec.Command("mount", "-o", "loop", i.file, i.mount).CombinedOutput(); err != nil {
		return fmt.Errorf("mount %s: %w: %.200s", i.file, err, out)
	}
	return nil
}

func (i *image) unmount() error {
	if out, err := exec.Command("umount", i.mount).CombinedOutput(); err != nil {
		return fmt.Errorf("umount %s: %w: %.200s", i.mount, err, out)
	}
	return nil
}

// cutPower stops the file system without writing anything back.
func (i *image) cutPower() error {
	d, err := os.Open(i.mount)
	if err != nil {
		return err
	}
	defer d.Close()
	return unix.IoctlSetPointerInt(int(d.Fd()), ext4Shutdown, ext4ShutdownNoLogFlush)
}

// controlEach is how many cuts there are for one of the control.
const controlEach = 5

// powerCuts cuts the power under load with walSync=always, and now and then with
// walSync=os as the control: where the control loses nothing, the cuts prove
// nothing.
func powerCuts(ctx context.Context, c *chaos, o *outcome) error {
	for cut := range c.o.cuts {
		lost, samples, err := c.powerCut(ctx, o, fmt.Sprintf("always-%d", cut), "always")
		if err != nil {
			return fmt.Errorf("cut %d: %w", cut, err)
		}
		o.add("cuts", 1)
		o.add("acknowledgedSamples", float64(samples))
		o.add("lost", float64(lost))
		o.expect(lost == 0, "walSync=always: cut %d lost %d of %d acknowledged samples", cut, lost, samples)
		if cut%controlEach != 0 {
			continue
		}
		lost, samples, err = c.powerCut(ctx, o, fmt.Sprintf("os-%d", cut), "os")
		if err != nil {
			return fmt.Errorf("control %d: %w", cut, err)
		}
		o.add("controlCuts", 1)
		o.add("controlAcknowledgedSamples", float64(samples))
		o.add("controlLost", float64(lost))
	}
	o.expect(o.Numbers["controlLost"] > 0, "the control with walSync=os lost nothing: the cuts do not cut")
	return nil
}

// powerCut writes to a fresh disk, cuts its power, and counts what is gone.
func (c *chaos) powerCut(ctx context.Context, o *outcome, name, sync string) (lost, samples int, err error) {
	dir := filepath.Join(c.dir, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return 0, 0, err
	}
	img, err := mountImage(dir, diskMiB)
	if err != nil {
		return 0, 0, err
	}
	defer func() { c.killAll(); err = errors.Join(err, img.unmount(), os.Remove(img.file)) }()
	l := newLedger(4, 40)
	defer l.client.CloseIdleConnections()
	s, err := c.server(filepath.Join(img.mount, "data"), nil,
		"--storage.badger.walSync", sync, "--storage.badger.minFreeBytes", "67108864", "--storage.badger.snapshotInterval", "1s")
	if err != nil {
		return 0, 0, err
	}
	if err := c.startReady(ctx, s, o); err != nil {
		return 0, 0, err
	}
	if err := c.cutUnderLoad(ctx, l, s, img); err != nil {
		return 0, 0, err
	}
	if err := c.startReady(ctx, s, o); err != nil {
		return 0, 0, fmt.Errorf("start after the cut: %w", err)
	}
	v := l.check(ctx, s.url, true)
	o.expect(v.wrong == 0, "walSync=%s: %d wrong values after a power cut", sync, v.wrong)
	return v.missing, l.samples(), errors.Join(v.err, s.stop(syscall.SIGTERM))
}

// cutUnderLoad stops the process in the midst of writes, so that nothing more is
// acknowledged, cuts the power, and mounts the disk again.
func (c *chaos) cutUnderLoad(ctx context.Context, l *ledger, s *server, img *image) error {
	writing, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- l.write(writing, s.url) }()
	wait(ctx, time.Duration(500+c.rng.IntN(1500))*time.Millisecond)
	if err := s.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	cancel()
	if err := errors.Join(<-done, img.cutPower(), s.stop(syscall.SIGKILL)); err != nil {
		return err
	}
	return errors.Join(img.unmount(), img.attach())
}
