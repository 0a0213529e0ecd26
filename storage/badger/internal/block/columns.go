package block

import (
	"fmt"
	"math/bits"
	"slices"
)

// GroupSize is the number of series of one group, and so of slots in a block.
const GroupSize = 64

// MaxSamples is the most samples of all slots together that one float block holds. It bounds what Decode takes in
// memory (16 bytes a sample); an encoder refuses more with ErrTooLarge.
const MaxSamples = 1 << 18

// STRun says that Count samples in a row carry the start timestamp ST (Unix milliseconds, 0 = unset).
type STRun struct {
	Count uint32
	ST    int64
}

// AppendST extends the runs by one sample.
func AppendST(runs []STRun, st int64) []STRun {
	if n := len(runs); n > 0 && runs[n-1].ST == st && runs[n-1].Count < 1<<32-1 {
		runs[n-1].Count++
		return runs
	}
	return append(runs, STRun{Count: 1, ST: st})
}

// Columns are the samples of one group, by slot: what an encoder takes and what Decode fills. TS[i] and VS[i] have one
// length; TS ascends strictly. Slots without samples are nil. Several slots may share one TS slice: treat it as read
// only. ST[i] is nil when no sample of the slot has a start timestamp, else its counts add up to the samples.
//
// A Columns that is used again keeps its buffers: Decode and LoadStreams then allocate nothing, and overwrite what the
// previous call returned.
type Columns struct {
	TS [GroupSize][]int64
	VS [GroupSize][]float64
	ST [GroupSize][]STRun

	times  []int64
	values []float64
	runs   []STRun
	ints   []int64
	raw    []byte
	cols   [GroupSize][]int64
}

// Reset empties all slots and keeps the buffers.
func (c *Columns) Reset() {
	clear(c.TS[:])
	clear(c.VS[:])
	clear(c.ST[:])
}

// Slots returns the bitmap of slots that hold samples.
func (c *Columns) Slots() uint64 {
	var m uint64
	for i := range c.TS {
		if len(c.TS[i]) > 0 {
			m |= 1 << i
		}
	}
	return m
}

// LoadStreams replaces the slots of want by the samples of the streams; streams[i] becomes slot i. Other slots keep what
// they had: clearing them would take longer than loading one series. Start timestamps are the caller's to add.
func (c *Columns) LoadStreams(a *Arena, streams []Stream, want uint64) {
	total := 0
	for m := want; m != 0; m &= m - 1 {
		i := bits.TrailingZeros64(m)
		c.TS[i], c.VS[i], c.ST[i] = nil, nil, nil
		if i < len(streams) {
			total += streams[i].Len()
		}
	}
	ts, vs := slices.Grow(c.times[:0], total), slices.Grow(c.values[:0], total)
	for m := want; m != 0; m &= m - 1 {
		i := bits.TrailingZeros64(m)
		if i >= len(streams) || streams[i].Len() == 0 {
			continue
		}
		from := len(ts)
		ts, vs = streams[i].Decode(a, ts, vs)
		c.TS[i] = ts[from:len(ts):len(ts)]
		c.VS[i] = vs[from:len(vs):len(vs)]
	}
	c.times, c.values = ts, vs
}

// Room returns for how many samples there are buffers.
func (c *Columns) Room() int { return max(cap(c.times), cap(c.values)) }

// check reports the first breach of the contract, and the number of samples.
func (c *Columns) check() (samples int, err error) {
	for i, ts := range c.TS {
		if len(ts) != len(c.VS[i]) {
			return 0, fmt.Errorf("encode slot %d: %d times, %d values: %w", i, len(ts), len(c.VS[i]), ErrInput)
		}
		samples += len(ts)
		if c.ST[i] == nil {
			continue
		}
		n := uint64(0)
		for _, r := range c.ST[i] {
			if r.Count == 0 {
				return 0, fmt.Errorf("encode slot %d: empty run of start timestamps: %w", i, ErrInput)
			}
			n += uint64(r.Count)
		}
		if n != uint64(len(ts)) {
			return 0, fmt.Errorf("encode slot %d: %d times, %d start timestamps: %w", i, len(ts), n, ErrInput)
		}
	}
	switch {
	case samples == 0:
		return 0, fmt.Errorf("encode block without samples: %w", ErrInput)
	case samples > MaxSamples:
		return 0, fmt.Errorf("encode %d samples: %w", samples, ErrTooLarge)
	}
	return samples, nil
}
