package tenancy

import (
	"encoding/binary"
	"errors"
	"slices"
)

// noteVersion is the first byte of a note; notes of another version are not read.
const noteVersion = 1

// tenantNote is what a process tells the others of one tenant. The lists are parts,
// not the whole, but for reserved.
type tenantNote struct {
	tenant     string
	generation int64 // of the series
	// reserved is what the process may still admit, by scope of the limit; it replaces
	// what the process reserved before.
	reserved map[string]int
	series   []metricSeries
	day      int64  // of sketch
	sketch   []byte // of the distinct series of the day, nil if not told
}

// metricSeries are hashes of active series of one metric.
type metricSeries struct {
	metric string
	hashes []uint64
}

// appendNote encodes.
func appendNote(b []byte, tenants []tenantNote) []byte {
	b = append(b, noteVersion)
	b = binary.AppendUvarint(b, uint64(len(tenants)))
	for _, t := range tenants {
		b = appendText(b, t.tenant)
		b = binary.AppendVarint(b, t.generation)
		b = binary.AppendUvarint(b, uint64(len(t.reserved)))
		for scope, n := range t.reserved {
			b = appendText(b, scope)
			b = binary.AppendUvarint(b, uint64(max(0, n)))
		}
		b = binary.AppendUvarint(b, uint64(len(t.series)))
		for _, m := range t.series {
			b = appendText(b, m.metric)
			b = binary.AppendUvarint(b, uint64(len(m.hashes)))
			for _, h := range m.hashes {
				b = binary.LittleEndian.AppendUint64(b, h)
			}
		}
		b = binary.AppendVarint(b, t.day)
		b = appendText(b, string(t.sketch))
	}
	return b
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// parseNote decodes a note of this version. What it returns shares no memory with b.
func parseNote(b []byte) ([]tenantNote, error) {
	if len(b) == 0 || b[0] != noteVersion {
		return nil, errors.New("note of an unknown version")
	}
	d := noteDecoder{b: b[1:]}
	var out []tenantNote
	for range d.count(1) {
		t := tenantNote{tenant: d.text(), generation: d.varint()}
		if n := d.count(2); n > 0 {
			t.reserved = make(map[string]int, n)
			for range n {
				scope := d.text()
				t.reserved[scope] = int(min(d.uvarint(), 1<<40))
			}
		}
		for range d.count(2) {
			m := metricSeries{metric: d.text()}
			n := d.count(8)
			m.hashes = make([]uint64, 0, n)
			for range n {
				m.hashes = append(m.hashes, d.hash())
			}
			t.series = append(t.series, m)
		}
		t.day = d.varint()
		if s := d.text(); s != "" {
			t.sketch = []byte(s)
		}
		if d.short {
			break
		}
		out = append(out, t)
	}
	if d.short || len(d.b) > 0 {
		return nil, errors.New("note is damaged")
	}
	return out, nil
}

// noteDecoder reads from b; short is set once something did not fit, and zeros follow.
type noteDecoder struct {
	b     []byte
	short bool
}

func (d *noteDecoder) fail() {
	d.b, d.short = nil, true
}

func (d *noteDecoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *noteDecoder) varint() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

// count reads how many elements of at least size bytes follow.
func (d *noteDecoder) count(size int) int {
	n := d.uvarint()
	if n > uint64(len(d.b)/size) {
		d.fail()
		return 0
	}
	return int(n)
}

func (d *noteDecoder) text() string {
	n := d.count(1)
	s := string(d.b[:n])
	d.b = d.b[n:]
	return s
}

func (d *noteDecoder) hash() uint64 {
	if len(d.b) < 8 {
		d.fail()
		return 0
	}
	h := binary.LittleEndian.Uint64(d.b)
	d.b = d.b[8:]
	return h
}

// byMetric groups announced series by their metric's name.
func byMetric(news []announcement, names map[uint32]string) []metricSeries {
	slices.SortFunc(news, func(a, b announcement) int { return int(int64(a.metric) - int64(b.metric)) })
	var out []metricSeries
	for i, x := range news {
		if i == 0 || x.metric != news[i-1].metric {
			out = append(out, metricSeries{metric: names[x.metric]})
		}
		last := &out[len(out)-1]
		last.hashes = append(last.hashes, x.hash)
	}
	return out
}
