package badger

import (
	"bytes"
	"context"
	"math/bits"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/badger/internal/block"
)

const (
	// estimateProbes is how many groups of each day Estimate looks at.
	estimateProbes = 8
	// sampleBytes and seriesBytes are what Select needs for a sample, and for a
	// series' labels and slices.
	sampleBytes = 16
	seriesBytes = 300
)

// Estimate implements storage.Store. Series are counted by the index, of each day
// anew; samples are those of a few groups, by the counters of head and block headers,
// scaled up.
func (db *DB) Estimate(ctx context.Context, t storage.Tenant, s storage.Selection) (storage.Estimate, error) {
	var e storage.Estimate
	if err := db.enter(ctx, "estimate", t); err != nil {
		return e, err
	}
	defer db.leave()
	if err := s.Validate(); err != nil {
		return e, err
	}
	tn := db.lookupTenant(t)
	if tn == nil {
		return e, nil
	}
	x := db.newSelection(tn, s)
	for _, p := range x.parts {
		ids, err := db.selectIDs(ctx, p, s.Matchers)
		if err != nil {
			return storage.Estimate{}, err
		}
		samples, err := x.estimate(ctx, p, ids)
		if err != nil {
			return storage.Estimate{}, internal("estimate", err)
		}
		e.Series += ids.GetCardinality()
		e.Samples += samples
	}
	e.Bytes = sampleBytes*e.Samples + seriesBytes*e.Series
	return e, nil
}

// estimate guesses the samples of ids in one partition.
func (x *selection) estimate(ctx context.Context, p *partition, ids *roaring.Bitmap) (uint64, error) {
	series := ids.GetCardinality()
	if series == 0 {
		return 0, nil
	}
	sc := x.db.newScan(p)
	defer sc.close()
	seen, found, last := uint64(0), uint64(0), ^uint32(0)
	for i := range min(estimateProbes, series) {
		if err := storage.ContextError(ctx, "estimate"); err != nil {
			return 0, err
		}
		id, err := ids.Select(uint32(i * series / min(estimateProbes, series)))
		if err != nil {
			return 0, err
		}
		n := id / block.GroupSize
		if n == last {
			continue
		}
		last = n
		want := wantedOf(ids, n)
		mint, err := x.mint(ctx, p, n)
		if err != nil {
			return 0, err
		}
		count, err := sc.countGroup(n, want, mint, x.s.MaxT)
		if err != nil {
			return 0, err
		}
		seen += uint64(bits.OnesCount64(want))
		found += count
	}
	return (found*series + seen - 1) / seen, nil
}

// wantedOf returns the slots of a group that are in ids.
func wantedOf(ids *roaring.Bitmap, n uint32) (want uint64) {
	it := ids.Iterator()
	for it.AdvanceIfNeeded(n * block.GroupSize); it.HasNext(); {
		id := it.Next()
		if id/block.GroupSize != n {
			break
		}
		want |= 1 << (id % block.GroupSize)
	}
	return want
}

// countGroup guesses how many samples of a group lie in [mint, maxt], deletes not
// counted. It decodes one stream at most.
func (s *scan) countGroup(n uint32, want uint64, mint, maxt int64) (uint64, error) {
	if mint > maxt {
		return 0, nil
	}
	count, blocks := s.countHead(n, want, mint, maxt)
	if !blocks {
		return count, nil
	}
	if s.txn == nil {
		s.open()
	}
	for i, row := range [...]byte{rowFloats, rowHists} {
		it := s.its[i]
		prefix := s.p.groupKey(row, n)
		for it.Seek(prefix); it.Valid(); it.Next() {
			item := it.Item()
			if !bytes.HasPrefix(item.Key(), prefix) {
				break
			}
			k, err := parseBlockKey(item.Key())
			if err != nil {
				return 0, s.damaged(item.Key(), err)
			}
			from, to := s.p.mint()+int64(k.t0), s.p.mint()+int64(k.t1)
			if from > maxt {
				break
			}
			if to < mint {
				continue
			}
			share := float64(min(to, maxt)-max(from, mint)+1) / float64(to-from+1)
			err = item.Value(func(b []byte) error {
				samples, err := countBlock(row, b, want)
				count += uint64(share*float64(samples) + 0.5)
				return err
			})
			if err != nil {
				return 0, s.damaged(item.Key(), err)
			}
		}
	}
	return count, nil
}

// countBlock counts the samples of the wanted slots by the block's header. One block
// of histograms tells its series only; each has some.
func countBlock(row byte, b []byte, want uint64) (samples int, err error) {
	if row == rowHists {
		f, err := block.OpenHistograms(b)
		return histogramsPerSeries * bits.OnesCount64(f.Slots&want), err
	}
	f, err := block.OpenFloats(b)
	if err != nil {
		return 0, err
	}
	for m := f.Slots & want; m != 0; m &= m - 1 {
		samples += f.Count(bits.TrailingZeros64(m))
	}
	return samples, nil
}

// histogramsPerSeries is a guess at a full block.
const histogramsPerSeries = 60

// countHead counts what is in the head: the streams' lengths, times the share of one
// stream that lies in range.
func (s *scan) countHead(n uint32, want uint64, mint, maxt int64) (count uint64, blocks bool) {
	h := &s.db.head
	h.mu.RLock()
	defer h.mu.RUnlock()
	g := s.p.group(n)
	if g == nil {
		return 0, true
	}
	count = s.countOpen(want, mint, maxt, g.streams, g.late, g.hists)
	if f := g.frozen; f != nil {
		count += s.countOpen(want, mint, maxt, f.streams, f.late, f.hists)
	}
	return count, g.blocksReach(mint)
}

func (s *scan) countOpen(want uint64, mint, maxt int64, streams []block.Stream, late []lateSample, hists []headHistogram) (count uint64) {
	total, longest := 0, -1
	for i := range streams {
		x := &streams[i]
		if want>>i&1 == 0 || x.Len() == 0 || x.MaxT() < mint {
			continue
		}
		total += x.Len()
		if longest < 0 || x.Len() > streams[longest].Len() {
			longest = i
		}
	}
	if longest >= 0 {
		x := &streams[longest]
		s.times, s.values = x.DecodeRange(s.db.head.arena, mint, maxt, s.times[:0], s.values[:0])
		count = uint64((total*len(s.times) + x.Len() - 1) / x.Len())
	}
	for _, l := range late {
		if want>>l.slot&1 != 0 && l.t >= mint && l.t <= maxt {
			count++
		}
	}
	for _, x := range hists {
		if want>>x.slot&1 != 0 && x.h.T >= mint && x.h.T <= maxt {
			count++
		}
	}
	return count
}
