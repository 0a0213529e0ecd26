package grid

import (
	"sync/atomic"

	"github.com/luminate/luminate/storage"
)

// Budget bounds the memory of one evaluation. It is safe for concurrent use.
type Budget struct {
	max     int64
	setting string
	used    atomic.Int64
	peak    atomic.Int64
}

// NewBudget returns a budget of maxBytes; setting is the configuration's name for it, which errors give.
func NewBudget(maxBytes int64, setting string) *Budget {
	return &Budget{max: maxBytes, setting: setting}
}

// Take reserves n bytes, or fails with KindTooLarge and reserves nothing.
func (b *Budget) Take(n int64) error {
	used := b.used.Add(n)
	if used > b.max || used < 0 {
		b.used.Add(-n)
		return storage.LimitErrorf(storage.KindTooLarge, "evaluate", "max-evaluate-bytes", b.setting,
			"the query needs more than %d bytes of memory", b.max)
	}
	for peak := b.peak.Load(); used > peak && !b.peak.CompareAndSwap(peak, used); peak = b.peak.Load() {
	}
	return nil
}

// Give returns n bytes.
func (b *Budget) Give(n int64) { b.used.Add(-n) }

// Peak returns the most bytes that were reserved at once.
func (b *Budget) Peak() int64 { return b.peak.Load() }
