package grid

import (
	"sync/atomic"

	"github.com/luminate/luminate/storage"
)

// Budget bounds the memory of one evaluation. It is safe for concurrent use.
type Budget struct {
	max     int64
	setting string
	hold    func(bytes int64) error // nil: nobody else counts
	used    atomic.Int64
	peak    atomic.Int64
}

// NewBudget returns a budget of maxBytes; setting is the configuration's name for it, which errors give. hold, which
// may be nil, is told of everything that is taken and given back, and may refuse what is to be taken.
func NewBudget(maxBytes int64, setting string, hold func(bytes int64) error) *Budget {
	return &Budget{max: maxBytes, setting: setting, hold: hold}
}

// Take reserves n bytes, or fails with KindTooLarge, or what hold says, and reserves nothing.
func (b *Budget) Take(n int64) error {
	used := b.used.Add(n)
	if used > b.max || used < 0 {
		b.used.Add(-n)
		return storage.LimitErrorf(storage.KindTooLarge, "evaluate", "max-evaluate-bytes", b.setting,
			"the query needs more than %d bytes of memory", b.max)
	}
	if b.hold != nil {
		if err := b.hold(n); err != nil {
			b.Give(n)
			return err
		}
	}
	for peak := b.peak.Load(); used > peak && !b.peak.CompareAndSwap(peak, used); peak = b.peak.Load() {
	}
	return nil
}

// Give returns n bytes.
func (b *Budget) Give(n int64) {
	b.used.Add(-n)
	if b.hold != nil {
		_ = b.hold(-n) // giving back is never refused
	}
}

// Close gives back all that is still taken: the evaluation is over.
func (b *Budget) Close() { b.Give(b.used.Load()) }

// Peak returns the most bytes that were reserved at once.
func (b *Budget) Peak() int64 { return b.peak.Load() }
