package remote

import (
	"strings"
	"unicode/utf8"

	"github.com/VictoriaMetrics/easyproto"

	"github.com/luminate/luminate/storage"
)

// metricTypes are the types by their number, which is the same in both versions.
var metricTypes = [...]storage.MetricType{
	"unknown", "counter", "gauge", "histogram", "gaugehistogram", "summary", "info", "stateset",
}

// metricType returns the type of a number; a number of a later version is unknown.
func metricType(n int32) storage.MetricType {
	if n < 0 || int(n) >= len(metricTypes) {
		return metricTypes[0]
	}
	return metricTypes[n]
}

// metadataV1 decodes a MetricMetadata: type = 1, metric_family_name = 2, help = 4,
// unit = 5.
func (d *decoder) metadataV1(src []byte) error {
	var m storage.Metadata
	var kind int32
	var fc easyproto.FieldContext
	var err error
	for len(src) > 0 {
		if src, err = fc.NextField(src); err != nil {
			return brokenf("metadata: %w", err)
		}
		ok := true
		switch fc.FieldNum {
		case 1:
			kind, ok = fc.Enum()
		case 2:
			m.Metric, ok = fc.String()
		case 4:
			m.Help, ok = fc.String()
		case 5:
			m.Unit, ok = fc.String()
		}
		if !ok {
			return brokenf("metadata: field %d has the wrong type", fc.FieldNum)
		}
	}
	m.Type = metricType(kind)
	d.addMetadata(m)
	return d.checkSize()
}

// addMetadata takes the metadata of a metric; texts that are too long or not UTF-8
// are mended, for they only describe. Without a usable name there is nothing to
// describe, and the request is told so.
func (d *decoder) addMetadata(m storage.Metadata) {
	if m.Metric == "" || len(m.Metric) > d.limits.NameBytes || !utf8.ValidString(m.Metric) {
		d.refused.add(storage.ReasonInvalidLabels, counts{}, nil, func() string {
			return "metadata without a usable metric name"
		})
		return
	}
	m.Help = mendText(m.Help, d.limits.ValueBytes)
	m.Unit = mendText(m.Unit, d.limits.ValueBytes)
	d.batch.Metadata = append(d.batch.Metadata, m)
	d.bytes += 64 + len(m.Metric) + len(m.Help) + len(m.Unit)
}

// mendText cuts s to limit bytes at a character and replaces what is not UTF-8.
func mendText(s string, limit int) string {
	if len(s) > limit {
		for limit > 0 && !utf8.RuneStart(s[limit]) {
			limit--
		}
		s = s[:limit]
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// familyOf returns the name of the metric family that a series of the given type
// belongs to: metadata is kept for families, and version 2 sends it with series.
func familyOf(metric string, t storage.MetricType) string {
	var suffixes []string
	switch t {
	case "histogram", "gaugehistogram":
		suffixes = []string{"_bucket", "_count", "_sum", "_gcount", "_gsum"}
	case "summary":
		suffixes = []string{"_count", "_sum"}
	}
	for _, s := range suffixes {
		if family, ok := strings.CutSuffix(metric, s); ok && family != "" {
			return family
		}
	}
	return metric
}
