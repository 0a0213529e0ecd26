package badger

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"
	"time"

	promlabels "github.com/prometheus/prometheus/model/labels"

	"github.com/luminate/luminate/storage"
)

// The payloads of the rarer log records: little-endian numbers, lengths as uvarint.

// recordReader takes fields from b; after one that is not there bad is set.
type recordReader struct {
	b   []byte
	bad bool
}

func (r *recordReader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.b, r.bad = nil, true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *recordReader) varint() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.b, r.bad = nil, true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *recordReader) take(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.b, r.bad = nil, true
		return nil
	}
	p := r.b[:n:n]
	r.b = r.b[n:]
	return p
}

func (r *recordReader) bytes() []byte  { return r.take(r.uvarint()) }
func (r *recordReader) string() string { return string(r.bytes()) }

func (r *recordReader) uint32() uint32 {
	if p := r.take(4); p != nil {
		return binary.LittleEndian.Uint32(p)
	}
	return 0
}

func (r *recordReader) uint64() uint64 {
	if p := r.take(8); p != nil {
		return binary.LittleEndian.Uint64(p)
	}
	return 0
}

// count reads a number of items of which each takes a byte at least.
func (r *recordReader) count() int {
	n := r.uvarint()
	if n > uint64(len(r.b)) {
		r.b, r.bad = nil, true
		return 0
	}
	return int(n)
}

func (r *recordReader) err(what string) error {
	if r.bad {
		return fmt.Errorf("read %s: %w", what, errDamaged)
	}
	return nil
}

func appendBytes[T string | []byte | storage.Labels](dst []byte, b T) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(b))), b...)
}

func appendRecordHeader(dst []byte, tenant uint32, day int32, count int) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, tenant)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(day))
	return binary.AppendUvarint(dst, uint64(count))
}

func appendHistogramRecord(dst []byte, tenant uint32, day int32, rows []histogramRow) []byte {
	dst = appendRecordHeader(dst, tenant, day, len(rows))
	for i := range rows {
		dst = binary.AppendUvarint(dst, uint64(rows[i].ref))
		dst = appendHistogram(dst, rows[i].h)
	}
	return dst
}

// appendHistogram writes time, start timestamp and the canonical bytes.
func appendHistogram(dst []byte, h storage.HistogramSample) []byte {
	dst = binary.AppendVarint(dst, h.T)
	dst = binary.AppendVarint(dst, h.ST)
	return appendBytes(dst, storage.EncodeHistogram(nil, h))
}

func (r *recordReader) histogram() (storage.HistogramSample, error) {
	t, st := r.varint(), r.varint()
	b := r.bytes()
	if r.bad {
		return storage.HistogramSample{}, r.err("histogram")
	}
	return storage.DecodeHistogram(b, t, st)
}

func readHistogramRecord(b []byte) (tenant uint32, day int32, rows []histogramRow, err error) {
	r := recordReader{b: b}
	tenant, day = r.uint32(), int32(r.uint32())
	for range r.count() {
		ref := uint32(r.uvarint())
		h, err := r.histogram()
		if err != nil {
			return 0, 0, nil, fmt.Errorf("read histogram record: %w", err)
		}
		rows = append(rows, histogramRow{ref: ref, h: h})
	}
	return tenant, day, rows, r.err("histogram record")
}

func appendExemplarRecord(dst []byte, tenant uint32, day int32, rows []exemplarRow) []byte {
	dst = appendRecordHeader(dst, tenant, day, len(rows))
	for i := range rows {
		dst = binary.AppendUvarint(dst, uint64(rows[i].ref))
		dst = appendExemplar(dst, rows[i].e)
	}
	return dst
}

func appendExemplar(dst []byte, e storage.Exemplar) []byte {
	dst = binary.AppendVarint(dst, e.T)
	dst = binary.LittleEndian.AppendUint64(dst, math.Float64bits(e.V))
	return appendBytes(dst, e.Labels)
}

func (r *recordReader) exemplar() storage.Exemplar {
	e := storage.Exemplar{T: r.varint(), V: math.Float64frombits(r.uint64())}
	e.Labels = storage.Labels(r.bytes()).Clone()
	return e
}

func readExemplarRecord(b []byte) (tenant uint32, day int32, rows []exemplarRow, err error) {
	r := recordReader{b: b}
	tenant, day = r.uint32(), int32(r.uint32())
	for range r.count() {
		rows = append(rows, exemplarRow{ref: uint32(r.uvarint()), e: r.exemplar()})
	}
	return tenant, day, rows, r.err("exemplar record")
}

func appendMetadataRecord(dst []byte, tenant uint32, ms []storage.Metadata) []byte {
	dst = appendRecordHeader(dst, tenant, 0, len(ms))
	for _, m := range ms {
		dst = appendBytes(dst, m.Metric)
		dst = appendMetadata(dst, m)
	}
	return dst
}

func appendMetadata(dst []byte, m storage.Metadata) []byte {
	dst = appendBytes(dst, string(m.Type))
	dst = appendBytes(dst, m.Unit)
	return appendBytes(dst, m.Help)
}

func (r *recordReader) metadata(metric string) storage.Metadata {
	return storage.Metadata{Metric: metric, Type: storage.MetricType(r.string()), Unit: r.string(), Help: r.string()}
}

func readMetadataRecord(b []byte) (tenant uint32, ms []storage.Metadata, err error) {
	r := recordReader{b: b}
	tenant, _ = r.uint32(), r.uint32()
	for range r.count() {
		metric := r.string()
		ms = append(ms, r.metadata(metric))
	}
	return tenant, ms, r.err("metadata record")
}

// deleteRecord is a delete as the log keeps it; replay resolves the matchers again.
type deleteRecord struct {
	tenant     uint32
	id         string
	mint, maxt int64
	createdAt  time.Time
	matchers   []*storage.Matcher
}

func appendDeleteRecord(dst []byte, d deleteRecord) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, d.tenant)
	dst = appendBytes(dst, d.id)
	dst = binary.AppendVarint(dst, d.mint)
	dst = binary.AppendVarint(dst, d.maxt)
	dst = binary.AppendVarint(dst, d.createdAt.UnixNano())
	dst = binary.AppendUvarint(dst, uint64(len(d.matchers)))
	for _, m := range d.matchers {
		dst = append(dst, byte(m.Type))
		dst = appendBytes(dst, m.Name)
		dst = appendBytes(dst, m.Value)
	}
	return dst
}

func readDeleteRecord(b []byte) (deleteRecord, error) {
	r := recordReader{b: b}
	d := deleteRecord{tenant: r.uint32(), id: r.string(), mint: r.varint(), maxt: r.varint()}
	d.createdAt = time.Unix(0, r.varint())
	for range r.count() {
		kind := r.take(1)
		name, value := r.string(), r.string()
		if r.bad {
			break
		}
		m, err := promlabels.NewMatcher(promlabels.MatchType(kind[0]), name, value)
		if err != nil {
			return d, fmt.Errorf("read delete record: matcher %s: %w: %w", strings.ToValidUTF8(name, "?"), err, errDamaged)
		}
		d.matchers = append(d.matchers, m)
	}
	return d, r.err("delete record")
}

func appendVarints(dst []byte, vs ...int64) []byte {
	for _, v := range vs {
		dst = binary.AppendVarint(dst, v)
	}
	return dst
}
