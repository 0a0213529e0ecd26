//go:build linux

package engine

import (
	"syscall"
	"unsafe"
)

// keepSignals runs f and puts back every signal disposition it changed.
func keepSignals(f func()) {
	const n = 64
	var saved [n + 1][32]byte // struct kernel_sigaction on linux/amd64
	for s := 1; s <= n; s++ {
		rtSigaction(s, nil, &saved[s])
	}
	f()
	for s := 1; s <= n; s++ {
		var now [32]byte
		rtSigaction(s, nil, &now)
		if now != saved[s] {
			rtSigaction(s, &saved[s], nil)
		}
	}
}

func rtSigaction(sig int, set, old *[32]byte) {
	_, _, _ = syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(set)), uintptr(unsafe.Pointer(old)), 8, 0, 0)
}
