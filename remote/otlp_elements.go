package remote

import (
	"bytes"

	"github.com/VictoriaMetrics/easyproto"
)

// element describes a message of OTLP: which fields are messages that become objects
// of their own, and what is in them.
type element struct {
	counted bool
	fields  map[uint32]*element
}

// otlpElements is the tree of ExportMetricsServiceRequest.
var otlpElements = func() *element {
	leaf := &element{counted: true}
	// KeyValue.value.(array_value|kvlist_value).values; deeper nests count as bytes of
	// their parent, which bounds them well enough.
	attribute := &element{counted: true, fields: map[uint32]*element{
		2: {fields: map[uint32]*element{5: {fields: map[uint32]*element{1: leaf}}, 6: {fields: map[uint32]*element{1: leaf}}}},
	}}
	exemplar := &element{counted: true, fields: map[uint32]*element{7: attribute}}
	number := &element{counted: true, fields: map[uint32]*element{7: attribute, 5: exemplar}}
	histogram := &element{counted: true, fields: map[uint32]*element{9: attribute, 8: exemplar}}
	exponential := &element{counted: true, fields: map[uint32]*element{1: attribute, 11: exemplar}}
	summary := &element{counted: true, fields: map[uint32]*element{7: attribute, 6: leaf}}
	points := func(e *element) *element { return &element{fields: map[uint32]*element{1: e}} }
	metric := &element{counted: true, fields: map[uint32]*element{
		5: points(number), 7: points(number), 9: points(histogram), 10: points(exponential), 11: points(summary), 12: attribute,
	}}
	scope := &element{counted: true, fields: map[uint32]*element{1: {fields: map[uint32]*element{3: attribute}}, 2: metric}}
	resource := &element{counted: true, fields: map[uint32]*element{1: {fields: map[uint32]*element{1: attribute}}, 2: scope}}
	return &element{fields: map[uint32]*element{1: resource}}
}()

// countElements counts what takes an object of its own when the request is decoded,
// before it is. Broken messages are left to the decoder; JSON is counted by its
// braces.
func countElements(data []byte, mediaType string) int {
	if mediaType == jsonType {
		return bytes.Count(data, []byte("{"))
	}
	return otlpElements.count(data)
}

func (e *element) count(src []byte) int {
	n := 0
	if e.counted {
		n = 1
	}
	var fc easyproto.FieldContext
	var err error
	for len(src) > 0 {
		if src, err = fc.NextField(src); err != nil {
			return n
		}
		if child := e.fields[fc.FieldNum]; child != nil {
			if data, ok := fc.MessageData(); ok {
				if len(child.fields) == 0 {
					n++
				} else {
					n += child.count(data)
				}
			}
		}
	}
	return n
}
