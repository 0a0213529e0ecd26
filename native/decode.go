package native

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/luminate/luminate/storage"
	"github.com/zeebo/xxh3"
)

// RefusedMetric is one entry of a write answer's errors.
type RefusedMetric struct {
	Index  int    `json:"index"` // position in the request, from 0
	Metric string `json:"metric"`
	Code   Code   `json:"code"`
	Error  string `json:"error"`
}

// record is a decoded metric: its labels are labels[from:to] of the decoder.
type record struct {
	from, to uint32
	index    int32
	instance bool // has the dimension `instance`
	hash     uint64
	t        int64
	v        float64
}

type pair struct{ key, value string }

// decoder turns a body into records. It never builds a tree: strings are views of
// the window, and each metric goes at once to canonical label bytes. It is reused
// and not safe for concurrent use.
type decoder struct {
	scanner
	lim        WriteLimits
	now        int64
	mint, maxt int64

	source   string
	total    int // metrics seen, good and bad
	records  []record
	labels   []byte
	refused  []RefusedMetric // the first MaxReportedErrors
	codes    map[Code]int    // all refusals
	rejected int

	m metricScratch
}

// metricScratch is the metric that is being read.
type metricScratch struct {
	seen                       [4]bool // name, timestamp, value, dimensions
	name                       string
	nameWide                   bool
	t                          int64
	v                          float64
	dims                       []pair
	ordered                    bool // dims ascend by key
	problemCode                Code
	problem                    string // first problem, "" if none
	hasName, hasTime, hasValue bool
}

const (
	fieldName = iota
	fieldTimestamp
	fieldValue
	fieldDimensions
)

func (m *metricScratch) refuse(code Code, format string, args ...any) {
	if m.problem == "" {
		m.problemCode, m.problem = code, fmt.Sprintf(format, args...)
	}
}

func (d *decoder) reset(lim WriteLimits, now time.Time) {
	d.lim, d.now = lim, now.UnixMilli()
	d.mint, d.maxt = d.now-lim.MaxPast.Milliseconds(), d.now+lim.MaxFuture.Milliseconds()
	d.source, d.total, d.rejected = "", 0, 0
	d.records, d.labels = d.records[:0], d.labels[:0]
	d.refused = nil
	d.codes = map[Code]int{}
}

// decodeBatch reads {"metrics": […], "source": "…"}.
func (d *decoder) decodeBatch() error {
	if err := d.fill(minWindow); err != nil {
		return err
	}
	var metrics, source bool
	switch c, err := d.peekFill(); {
	case err != nil:
		return err
	case c != '{':
		return d.fail("expected an object with \"metrics\"")
	}
	err := d.object(func(key string, _ bool) error {
		switch {
		case key == "metrics" && !metrics:
			metrics = true
			return d.decodeMetrics()
		case key == "source" && !source:
			source = true
			return d.decodeSource()
		case key == "metrics" || key == "source":
			return invalidJSON("the field %q stands twice", key)
		default:
			return invalidJSON("unknown field %q: \"metrics\" and \"source\" are known", key)
		}
	})
	if err != nil {
		return err
	}
	if !metrics {
		return invalidJSON("the field \"metrics\" is missing")
	}
	if _, err := d.peekFill(); err != nil {
		return err
	}
	if d.pos < d.end {
		return invalidJSON("unexpected %s after the end of the object at byte %d", quoteByte(d.buf[d.pos]), d.off+int64(d.pos))
	}
	d.applySource()
	return nil
}

func invalidJSON(format string, args ...any) *Error {
	return errorf(http.StatusBadRequest, CodeInvalidJSON, format, args...)
}

// decodeMetrics reads the array, refilling the window between elements.
func (d *decoder) decodeMetrics() error {
	if d.peek() != '[' || d.pos >= d.end {
		return d.fail("\"metrics\" must be an array")
	}
	d.pos++
	switch c, err := d.peekFill(); {
	case err != nil:
		return err
	case c == ']':
		d.pos++
		return d.fill(minWindow)
	}
	for {
		if err := d.decodeMetric(); err != nil {
			return err
		}
		c, err := d.peekFill()
		if err != nil {
			return err
		}
		switch {
		case c == ',' && d.pos < d.end:
			d.pos++
			if _, err := d.peekFill(); err != nil {
				return err
			}
		case c == ']' && d.pos < d.end:
			d.pos++
			return d.fill(minWindow)
		default:
			return d.fail("expected ',' or ']' after a metric")
		}
	}
}

// decodeMetric reads one element; a longer one than the window makes it grow.
func (d *decoder) decodeMetric() error {
	if d.total >= d.lim.MaxMetrics {
		return tooManyMetrics(d.lim.MaxMetrics)
	}
	if err := d.fill(minWindow); err != nil {
		return err
	}
	for {
		start := d.pos
		d.scratch = d.scratch[:0]
		err := d.metric()
		if err == nil {
			break
		}
		if !errors.Is(err, errMore) {
			return err
		}
		need := 2 * (d.end - start)
		d.pos = start
		if err := d.fill(need); err != nil {
			return err
		}
	}
	d.finish()
	return nil
}

func tooManyMetrics(limit int) *Error {
	e := errorf(http.StatusRequestEntityTooLarge, CodeBatchTooLarge, "more than %d metrics in a request; nothing was stored", limit)
	e.Details = map[string]any{"limit": "maxMetrics", "max": limit}
	return e
}

// metric reads an element into d.m. Errors are of syntax; what is only wrong with
// this metric is noted in d.m.
func (d *decoder) metric() error {
	d.m = metricScratch{dims: d.m.dims[:0], ordered: true}
	if d.peek() != '{' {
		what, err := d.skip(0)
		if err != nil {
			return err
		}
		d.m.refuse(CodeInvalidJSON, "a metric must be an object, it is %s", what)
		return nil
	}
	return d.object(d.metricField)
}

func (d *decoder) metricField(key string, _ bool) error {
	field := -1
	switch key {
	case "name":
		field = fieldName
	case "timestamp":
		field = fieldTimestamp
	case "value":
		field = fieldValue
	case "dimensions":
		field = fieldDimensions
	}
	if field < 0 {
		d.m.refuse(CodeInvalidJSON, "unknown field %q: name, timestamp, value and dimensions are known", clipText(key))
		_, err := d.skip(1)
		return err
	}
	if d.m.seen[field] {
		d.m.refuse(CodeInvalidJSON, "the field %q stands twice", key)
	}
	d.m.seen[field] = true
	switch field {
	case fieldName:
		return d.nameField()
	case fieldTimestamp:
		return d.timestampField()
	case fieldValue:
		return d.valueField()
	default:
		return d.dimensionsField()
	}
}

func (d *decoder) nameField() error {
	if d.peek() != '"' {
		what, err := d.skip(1)
		d.m.refuse(CodeInvalidMetricName, "name must be a string, it is %s", what)
		return err
	}
	s, wide, err := d.str()
	d.m.name, d.m.nameWide, d.m.hasName = s, wide, true
	return err
}

func (d *decoder) valueField() error {
	c := d.peek()
	if c != '-' && !isDigit(c) {
		what, err := d.skip(1)
		d.m.refuse(CodeInvalidValue, "value must be a number, it is %s", what)
		return err
	}
	n, err := d.num()
	if err != nil {
		return err
	}
	d.m.v, d.m.hasValue = n.float(), true
	if math.IsInf(d.m.v, 0) {
		d.m.refuse(CodeInvalidValue, "value %s is beyond the range of a 64-bit float", clipText(n.text))
	}
	return nil
}

func (d *decoder) timestampField() error {
	switch c := d.peek(); {
	case c == '-' || isDigit(c):
		n, err := d.num()
		if err != nil {
			return err
		}
		t, ok := n.integer()
		if !ok {
			d.m.refuse(CodeInvalidTimestamp, "timestamp %s is not a whole number of milliseconds%s", clipText(n.text), unitHint(n.float(), d.mint, d.maxt))
		}
		d.m.t, d.m.hasTime = t, true
		return nil
	case c == '"':
		s, _, err := d.str()
		if err != nil {
			return err
		}
		t, perr := time.Parse(time.RFC3339Nano, s)
		if perr != nil {
			d.m.refuse(CodeInvalidTimestamp, "timestamp %q is not RFC 3339 (as 2025-01-31T12:00:00Z); a number would be milliseconds", clipText(s))
			return nil
		}
		d.m.t, d.m.hasTime = t.UnixMilli(), true
		return nil
	case c == 'n':
		return d.literal("null") // absent: now
	default:
		what, err := d.skip(1)
		d.m.refuse(CodeInvalidTimestamp, "timestamp must be a number of milliseconds or an RFC 3339 string, it is %s", what)
		return err
	}
}

func (d *decoder) dimensionsField() error {
	switch d.peek() {
	case '{':
		return d.object(d.dimension)
	case 'n':
		return d.literal("null")
	default:
		what, err := d.skip(1)
		d.m.refuse(CodeInvalidDimension, "dimensions must be an object of strings, it is %s", what)
		return err
	}
}

func (d *decoder) dimension(key string, wide bool) error {
	if d.peek() != '"' {
		what, err := d.skip(2)
		d.m.refuse(CodeInvalidDimension, "the value of dimension %q must be a string, it is %s", clipText(key), what)
		return err
	}
	value, valueWide, err := d.str()
	if err != nil {
		return err
	}
	if why := badName(key, d.lim.MaxKeyBytes, "limits.maxDimensionKeyBytes"); why != "" {
		d.m.refuse(CodeInvalidDimension, "dimension key %q %s", clipText(key), why)
	}
	if why := badDimensionValue(value, valueWide, d.lim.MaxValueBytes); why != "" {
		d.m.refuse(CodeInvalidDimension, "the value of dimension %q %s", clipText(key), why)
	}
	dims := d.m.dims
	if n := len(dims); n > 0 && dims[n-1].key >= key {
		d.m.ordered = false
	}
	d.m.dims = append(dims, pair{key, value})
	return nil
}

// finish checks the metric as a whole and keeps or refuses it.
func (d *decoder) finish() {
	m := &d.m
	index := d.total
	d.total++
	switch {
	case m.problem != "":
	case !m.hasName:
		m.refuse(CodeInvalidMetricName, "name is missing")
	case !m.hasValue:
		m.refuse(CodeInvalidValue, "value is missing")
	case len(m.dims) > d.lim.MaxDimensions:
		m.refuse(CodeDimensionLimit, "the metric has %d dimensions, at most %d are allowed (max-dimensions, set by limits.maxDimensions)", len(m.dims), d.lim.MaxDimensions)
	default:
		if why := badName(m.name, d.lim.MaxNameBytes, "limits.maxMetricNameBytes"); why != "" {
			m.refuse(CodeInvalidMetricName, "name %q %s", clipText(m.name), why)
		}
		d.checkTime()
	}
	if m.problem == "" && !m.ordered {
		d.sortDimensions()
	}
	if m.problem != "" {
		d.refuse(index, m.name, m.problemCode, m.problem)
		return
	}
	d.keep(index)
}

func (d *decoder) checkTime() {
	m := &d.m
	if !m.hasTime {
		m.t = d.now
		return
	}
	if m.t >= d.mint && m.t <= d.maxt {
		return
	}
	hint := unitHint(float64(m.t), d.mint, d.maxt)
	if m.t < d.mint {
		m.refuse(CodeInvalidTimestamp, "timestamp %d is older than %s (limits.maxPast)%s", m.t, formatDays(d.lim.MaxPast), hint)
		return
	}
	m.refuse(CodeInvalidTimestamp, "timestamp %d is more than %s ahead (limits.maxFuture)%s", m.t, formatDays(d.lim.MaxFuture), hint)
}

// sortDimensions orders the pairs and finds duplicates. There are few: an
// insertion sort beats the general one.
func (d *decoder) sortDimensions() {
	dims := d.m.dims
	for i := 1; i < len(dims); i++ {
		for j := i; j > 0 && dims[j].key < dims[j-1].key; j-- {
			dims[j], dims[j-1] = dims[j-1], dims[j]
		}
	}
	for i := 1; i < len(dims); i++ {
		if dims[i].key == dims[i-1].key {
			d.m.refuse(CodeInvalidDimension, "the dimension %q stands twice", dims[i].key)
			return
		}
	}
}

// keep writes the canonical label bytes and the record.
func (d *decoder) keep(index int) {
	m := &d.m
	from := len(d.labels)
	b, named, instance := d.labels, false, false
	for _, p := range m.dims {
		if !named && p.key > storage.MetricName {
			b, named = storage.AppendLabel(b, storage.MetricName, m.name), true
		}
		if p.key == InstanceDimension {
			instance = true
		}
		b = storage.AppendLabel(b, p.key, p.value)
	}
	if !named {
		b = storage.AppendLabel(b, storage.MetricName, m.name)
	}
	d.labels = b
	d.records = append(d.records, record{
		from: uint32(from), to: uint32(len(b)), index: int32(index), instance: instance,
		hash: xxh3.Hash(b[from:]), t: m.t, v: m.v,
	})
}

func (d *decoder) refuse(index int, metric string, code Code, message string) {
	d.rejected++
	d.codes[code]++
	if len(d.refused) < d.lim.MaxReportedErrors {
		d.refused = append(d.refused, RefusedMetric{
			Index: index, Metric: strings.ToValidUTF8(clipText(metric), "�"), Code: code, Error: strings.ToValidUTF8(message, "�"),
		})
	}
}

// sortRefused orders the named refusals as the request had them.
func (d *decoder) sortRefused() {
	slices.SortStableFunc(d.refused, func(a, b RefusedMetric) int { return a.Index - b.Index })
}
