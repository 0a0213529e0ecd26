package index

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"sort"
	"sync"
)

// Packed is the index of a closed partition. It keeps the label names and which metric owns which group, some bytes
// for each, and a few series records; the rest it reads from its Source when a question needs it. It is safe for
// concurrent use.
type Packed struct {
	src Source
	*packedParts
}

// packedParts is what all views of one packed index share.
type packedParts struct {
	meta  metaRecord
	names []packedName // in order; the first, with an empty name, is the set of all series
	dir   *directory

	mu      sync.Mutex      // guards records
	records []*seriesRecord // most recently used last
}

// keptRecords is how many decoded records a Packed keeps for AppendLabels and Hash; one is some tens of KiB.
const keptRecords = 8

// metaRecord is the payload of the meta key: generation (0: nothing packed yet), series, bound of ids, number of names
// and of their chunks, number of hash blocks and the last hash; at last a random stamp, which tells this packed form
// from any other, were it of a partition that was dropped and made anew.
type metaRecord struct {
	generation, bound, names, nameChunks, hashBlocks uint32
	series, lastHash, stamp                          uint64
}

// packedName is one label name.
type packedName struct {
	name                  []byte
	series, values, bytes uint64
	blocks                uint32 // of its postings
	last                  []byte // greatest value
}

func (r *metaRecord) encode() (key, value []byte) {
	var b []byte
	for _, v := range []uint64{
		uint64(r.generation), r.series, uint64(r.bound), uint64(r.names), uint64(r.nameChunks), uint64(r.hashBlocks), r.lastHash, r.stamp,
	} {
		b = binary.AppendUvarint(b, v)
	}
	return nil, seal(KindMeta, nil, b)
}

func (r *metaRecord) decode(payload []byte) bool {
	d := decoder{b: payload}
	r.generation, r.series, r.bound = d.u32(), d.uvarint(), d.u32()
	r.names, r.nameChunks, r.hashBlocks, r.lastHash = d.u32(), d.u32(), d.u32(), d.uvarint()
	r.stamp = d.uvarint()
	return !d.bad && len(d.b) == 0 && r.generation > 0 && r.bound <= MaxSeriesID && r.series <= uint64(r.bound)
}

// readMeta returns the zero record when nothing is packed yet.
func readMeta(src Source) (metaRecord, error) {
	value, ok, err := src.Get(KindMeta, nil)
	if err != nil || !ok {
		return metaRecord{}, err
	}
	payload, err := open(nil, KindMeta, nil, value)
	if err != nil {
		return metaRecord{}, err
	}
	var r metaRecord
	if !r.decode(payload) {
		return metaRecord{}, damaged(KindMeta, nil, "impossible field")
	}
	return r, nil
}

// OpenPacked opens the packed index in src; ErrNotPacked if there is none. It reads the names and the postings of the
// metrics.
func OpenPacked(ctx context.Context, src Source) (*Packed, error) {
	meta, err := readMeta(src)
	if err != nil {
		return nil, fmt.Errorf("open packed index: %w", err)
	}
	if meta.generation == 0 {
		return nil, fmt.Errorf("open packed index: %w", ErrNotPacked)
	}
	p := &Packed{src: src, packedParts: &packedParts{meta: meta}}
	for chunk := range meta.nameChunks {
		if err := p.readNames(namesKey(meta.generation, chunk)); err != nil {
			return nil, fmt.Errorf("open packed index: %w", err)
		}
	}
	if uint32(len(p.names)) != meta.names || len(p.names) == 0 {
		return nil, fmt.Errorf("open packed index: %w", damaged(KindMeta, nil, "%d names, want %d", len(p.names), meta.names))
	}
	if err := p.readDirectory(ctx); err != nil {
		return nil, fmt.Errorf("open packed index: %w", err)
	}
	return p, nil
}

// View returns the same packed index over another view of the same partition's keys, for the price of one Get: it
// shares what p has read. ok is false if src holds another packed form by now, or none; then OpenPacked reads it. p
// itself need not be usable any more: its Source is not asked.
func (p *Packed) View(src Source) (view *Packed, ok bool, err error) {
	meta, err := readMeta(src)
	if err != nil {
		return nil, false, fmt.Errorf("view packed index: %w", err)
	}
	if meta != p.meta {
		return nil, false, nil
	}
	return &Packed{src: src, packedParts: p.packedParts}, true, nil
}

func (p *Packed) readNames(key []byte) error {
	value, ok, err := p.src.Get(KindNames, key)
	if err != nil {
		return err
	}
	if !ok {
		return damaged(KindNames, key, "missing")
	}
	payload, err := open(nil, KindNames, key, value)
	if err != nil {
		return err
	}
	names, ok := decodeNames(payload)
	if !ok {
		return damaged(KindNames, key, "impossible field")
	}
	p.names = append(p.names, names...)
	return nil
}

func decodeNames(payload []byte) ([]packedName, bool) {
	d := decoder{b: payload}
	var names []packedName
	var prev []byte
	for len(d.b) > 0 {
		prev = d.frontCoded(prev)
		n := packedName{name: slices.Clone(prev)}
		n.series, n.values, n.bytes, n.blocks = d.uvarint(), d.uvarint(), d.uvarint(), d.u32()
		n.last = d.bytes()
		if d.bad {
			return nil, false
		}
		names = append(names, n)
	}
	return names, !d.bad
}

// name finds a label; its number is its position.
func (p *Packed) name(name string) (no uint32, n *packedName) {
	labels := p.names[1:]
	i := sort.Search(len(labels), func(i int) bool { return string(labels[i].name) >= name })
	if i == len(labels) || string(labels[i].name) != name {
		return 0, nil
	}
	return uint32(i) + 1, &p.names[i+1]
}

// SeriesCount implements Reader.
func (p *Packed) SeriesCount() uint64 { return p.meta.series }

// IDBound implements Reader.
func (p *Packed) IDBound() uint32 { return p.meta.bound }

// Generation tells which packed form this is; a later WritePacked makes another.
func (p *Packed) Generation() uint32 { return p.meta.generation }

// walk calls fn for the blocks of a label in order, from the first that may hold value or anything behind it, until fn
// returns false. It fails if a block is missing before, between or, unless fn ended the walk, behind them.
func (p *Packed) walk(ctx context.Context, no uint32, value []byte, fn func(key []byte, b *postingsBlock) (bool, error)) error {
	n := &p.names[no]
	prefix := appendU32s(nil, p.meta.generation, no)
	next, started, ended := uint32(0), false, false
	err := p.src.Scan(KindPostings, prefix, postingsSeek(p.meta.generation, no, value), func(suffix, v []byte) (bool, error) {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		payload, err := open(nil, KindPostings, suffix, v)
		if err != nil {
			return false, err
		}
		var b postingsBlock
		if !b.decode(payload) {
			return false, damaged(KindPostings, suffix, "impossible field")
		}
		if started && b.position != next || !started && b.position > 0 && bytes.Compare(b.prevLast, value) >= 0 {
			return false, damaged(KindPostings, suffix, "a block before this one is missing")
		}
		started, next = true, b.position+1
		more, err := fn(suffix, &b)
		ended = !more
		return more, err
	})
	switch {
	case err != nil || ended:
		return err
	case started && next != n.blocks, !started && n.blocks > 0 && bytes.Compare(value, n.last) <= 0:
		return damaged(KindPostings, prefix, "the last block of %q is missing", n.name)
	}
	return nil
}

// posting returns the series of one value of a label.
func (p *Packed) posting(ctx context.Context, no uint32, value []byte) (posting, error) {
	u := union{bound: p.meta.bound}
	var one posting
	found := 0
	err := p.walk(ctx, no, value, func(key []byte, b *postingsBlock) (bool, error) {
		if b.position > 0 && bytes.Compare(b.prevLast, value) > 0 {
			return false, nil
		}
		r := b.reader()
		for r.next() {
			switch c := bytes.Compare(r.e.value, value); {
			case c < 0:
				continue
			case c > 0:
				return false, nil
			}
			x, ok := r.e.posting(p.meta.bound)
			if !ok {
				return false, damaged(KindPostings, key, "impossible postings of %q", value)
			}
			if found++; found == 1 {
				one = x
				continue
			}
			if found == 2 {
				u.add(one)
			}
			u.add(x)
		}
		if !r.ok() {
			return false, damaged(KindPostings, key, "impossible entry")
		}
		return b.continues || bytes.Compare(b.last, value) < 0, nil
	})
	if err != nil || found <= 1 {
		return one, err
	}
	all := u.bitmap()
	return posting{n: all.GetCardinality(), bitmap: all}, nil
}

// directory tells which metric owns a group.
type directory struct {
	of      []uint32 // by group: number of the metric + 1
	metrics []dirMetric
}

type dirMetric struct {
	name   string
	id     uint32
	series uint64
}

func (d *directory) metric(group uint32) (*dirMetric, error) {
	if group >= uint32(len(d.of)) || d.of[group] == 0 {
		return nil, unknownSeries(group * GroupSize)
	}
	return &d.metrics[d.of[group]-1], nil
}

// readDirectory reads the postings of __name__.
func (p *Packed) readDirectory(ctx context.Context) error {
	d := &directory{of: make([]uint32, (uint64(p.meta.bound)+GroupSize-1)/GroupSize)}
	no, n := p.name(metricName)
	total := uint64(0)
	if n != nil {
		err := p.eachEntry(ctx, no, nil, func(key []byte, e *packedEntry) error {
			x, ok := e.posting(p.meta.bound)
			if !ok {
				return damaged(KindPostings, key, "impossible postings of %q", e.value)
			}
			total += x.n
			return d.add(key, e.value, x)
		})
		if err != nil {
			return err
		}
	}
	if total != p.meta.series {
		return damaged(KindMeta, nil, "metrics have %d series, want %d", total, p.meta.series)
	}
	p.dir = d
	return nil
}

// add enters (more of) the series of a metric.
func (d *directory) add(key, name []byte, x posting) error {
	b := x.toBitmap()
	if k := len(d.metrics); k == 0 || d.metrics[k-1].name != string(name) {
		d.metrics = append(d.metrics, dirMetric{name: string(name), id: b.Minimum() / GroupSize})
	}
	no := uint32(len(d.metrics))
	d.metrics[no-1].series += x.n
	for id := int64(b.Minimum()); id >= 0; id = b.NextValue(uint32(id)) {
		g := uint32(id) / GroupSize
		if d.of[g] != 0 && d.of[g] != no {
			return damaged(KindPostings, key, "group %d belongs to two metrics", g)
		}
		d.of[g] = no
		id = (id/GroupSize + 1) * GroupSize
	}
	return nil
}

// eachEntry calls fn for the entries of a label's values that begin with prefix, in order.
func (p *Packed) eachEntry(ctx context.Context, no uint32, prefix []byte, fn func(key []byte, e *packedEntry) error) error {
	return p.walk(ctx, no, prefix, func(key []byte, b *postingsBlock) (bool, error) {
		r := b.reader()
		for r.next() {
			if !bytes.HasPrefix(r.e.value, prefix) {
				if bytes.Compare(r.e.value, prefix) > 0 {
					return false, nil
				}
				continue
			}
			if err := fn(key, &r.e); err != nil {
				return false, err
			}
		}
		if !r.ok() {
			return false, damaged(KindPostings, key, "impossible entry")
		}
		return true, nil
	})
}

// MetricID implements Reader.
func (p *Packed) MetricID(group uint32) (uint32, error) {
	m, err := p.dir.metric(group)
	if err != nil {
		return 0, err
	}
	return m.id, nil
}

// MetricName implements Reader.
func (p *Packed) MetricName(group uint32) (string, error) {
	m, err := p.dir.metric(group)
	if err != nil {
		return "", err
	}
	return m.name, nil
}
