package wal

import (
	"encoding/binary"
	"fmt"
)

// SeriesEncoder collects new series of one tenant and day and encodes the
// TypeSeries payload. It keeps its buffers between calls and is not safe for
// concurrent use; begin with Reset.
type SeriesEncoder struct {
	tenant uint32
	day    int32
	count  int
	prev   uint32
	ids    []byte
	lens   []byte
	labels []byte
	body   []byte
}

// Reset empties the encoder and sets what the series are for.
func (e *SeriesEncoder) Reset(tenant uint32, day int32) {
	e.tenant, e.day, e.count, e.prev = tenant, day, 0, 0
	e.ids, e.lens, e.labels = e.ids[:0], e.lens[:0], e.labels[:0]
}

// Len is the number of series added; at most MaxSamples can be encoded.
func (e *SeriesEncoder) Len() int { return e.count }

// Size is the number of bytes before compression. A record takes up to 64 MiB of
// them: flush into the batch and Reset well before.
func (e *SeriesEncoder) Size() int { return len(e.ids) + len(e.lens) + len(e.labels) }

// Add adds a series; labels are its canonical bytes, which are copied.
func (e *SeriesEncoder) Add(id uint32, labels []byte) {
	e.ids = binary.AppendUvarint(e.ids, zigzag(int64(id)-int64(e.prev)))
	e.lens = binary.AppendUvarint(e.lens, uint64(len(labels)))
	e.labels = append(e.labels, labels...)
	e.prev = id
	e.count++
}

// AppendTo appends the payload to dst, commonly what Batch.Start returned.
func (e *SeriesEncoder) AppendTo(dst []byte) ([]byte, error) {
	if e.count > MaxSamples || e.Size() > maxBodyBytes {
		return dst, fmt.Errorf("encode %d series of %d bytes: %w", e.count, e.Size(), ErrTooLarge)
	}
	e.body = append(e.body[:0], e.ids...)
	e.body = append(e.body, e.lens...)
	e.body = append(e.body, e.labels...)
	flagAt := len(dst)
	dst = appendRecordHeader(dst, 0, e.tenant, e.day, e.count)
	return packBody(dst, flagAt, e.body), nil
}

// SeriesDecoder decodes TypeSeries payloads. The zero value is ready; it keeps
// its buffer between calls and is not safe for concurrent use.
type SeriesDecoder struct {
	scratch []byte
	ids     []uint32
}

// Decode calls add with each series in the order they were added; labels are
// valid during the call only. An error of add ends it and is returned as it is;
// a malformed payload is found before the first call and matches ErrCorrupt.
func (d *SeriesDecoder) Decode(payload []byte, add func(h RecordHeader, id uint32, labels []byte) error) error {
	h, flags, body, err := splitRecord(payload)
	if err != nil {
		return fmt.Errorf("decode series: %w", err)
	}
	if flags&flagStart != 0 {
		return fmt.Errorf("decode series: %w", corruptf("flags %#x", flags))
	}
	if body, d.scratch, err = unpackBody(flags, body, d.scratch); err != nil {
		return fmt.Errorf("decode series: %w", err)
	}
	if len(body) < 2*h.Count {
		return fmt.Errorf("decode series: %w", corruptf("%d series in %d bytes", h.Count, len(body)))
	}
	if cap(d.ids) < h.Count {
		d.ids = make([]uint32, h.Count)
	}
	d.ids = d.ids[:h.Count]
	lens, err := readRefs(body, d.ids)
	if err != nil {
		return fmt.Errorf("decode series: %w", err)
	}
	labels, err := checkLens(lens, h.Count)
	if err != nil {
		return fmt.Errorf("decode series: %w", err)
	}
	for _, id := range d.ids {
		n, w := readUvarint(lens)
		lens = lens[w:]
		if err := add(h, id, labels[:n:n]); err != nil {
			return err
		}
		labels = labels[n:]
	}
	return nil
}

// checkLens walks count lengths and returns the labels behind them, whose size
// must be the lengths' sum.
func checkLens(lens []byte, count int) ([]byte, error) {
	var sum uint64
	for i := range count {
		n, w := readUvarint(lens)
		if w <= 0 || n > maxBodyBytes {
			return nil, corruptf("length of series %d", i)
		}
		sum += n
		lens = lens[w:]
	}
	if sum != uint64(len(lens)) {
		return nil, corruptf("labels of %d bytes, lengths say %d", len(lens), sum)
	}
	return lens, nil
}
