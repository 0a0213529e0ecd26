//go:build linux

package wire

import (
	"fmt"
	"strconv"
	"strings"
)

// ctype is a parsed ClickHouse type, as far as its Native encoding needs.
type ctype struct {
	name string
	size int // bytes a row when fixed, else 0
	args []ctype
}

var fixed = map[string]int{
	"UInt8": 1, "Int8": 1, "Bool": 1, "Enum8": 1, "Nothing": 1, "UInt16": 2, "Int16": 2, "Date": 2, "Enum16": 2, "BFloat16": 2,
	"UInt32": 4, "Int32": 4, "Float32": 4, "Date32": 4, "DateTime": 4, "IPv4": 4, "Time": 4, "Decimal32": 4,
	"UInt64": 8, "Int64": 8, "Float64": 8, "DateTime64": 8, "Time64": 8, "Decimal64": 8,
	"UInt128": 16, "Int128": 16, "UUID": 16, "IPv6": 16, "Decimal128": 16, "UInt256": 32, "Int256": 32, "Decimal256": 32,
}

var geo = map[string]string{
	"Point": "Tuple(Float64, Float64)", "Ring": "Array(Point)", "LineString": "Array(Point)", "Polygon": "Array(Ring)",
	"MultiLineString": "Array(LineString)", "MultiPolygon": "Array(Polygon)",
}

// splitArgs cuts "a, b(c, d), 'x,y'" at its top-level commas.
func splitArgs(s string) (out []string) {
	depth, from := 0, 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '(':
			depth++
		case ')':
			depth--
		case '\'', '`', '"':
			for q := s[i]; i+1 < len(s); {
				i++
				if s[i] == '\\' {
					i++
				} else if s[i] == q {
					break
				}
			}
		case ',':
			if depth == 0 {
				out, from = append(out, strings.TrimSpace(s[from:i])), i+1
			}
		}
	}
	if t := strings.TrimSpace(s[from:]); t != "" {
		out = append(out, t)
	}
	return out
}

// elemType drops the leading name of a named tuple element.
func elemType(s string) string {
	if s[0] == '`' || s[0] == '"' {
		if i := strings.IndexByte(s[1:], s[0]); i >= 0 {
			return strings.TrimSpace(s[i+2:])
		}
	}
	if i := strings.IndexByte(s, ' '); i > 0 && !strings.ContainsAny(s[:i], "(,") {
		return strings.TrimSpace(s[i+1:])
	}
	return s
}

func parseType(s string) (ctype, error) {
	s = strings.TrimSpace(s)
	name, arg := s, ""
	if i := strings.IndexByte(s, '('); i >= 0 {
		name, arg = s[:i], s[i+1:len(s)-1]
	}
	if a, ok := geo[name]; ok {
		return parseType(a)
	}
	if n, ok := fixed[name]; ok {
		return ctype{name: name, size: n}, nil
	}
	if strings.HasPrefix(name, "Interval") {
		return ctype{name: name, size: 8}, nil
	}
	parts := splitArgs(arg)
	t := ctype{name: name}
	add := func(ss ...string) error {
		for _, p := range ss {
			c, err := parseType(p)
			if err != nil {
				return err
			}
			t.args = append(t.args, c)
		}
		return nil
	}
	var err error
	switch name {
	case "String", "JSON", "Object":
		t.name = "String"
		if name != "String" {
			t.name = "JSONString"
		}
	case "FixedString":
		t.size, err = strconv.Atoi(parts[0])
	case "Decimal":
		p, e := strconv.Atoi(parts[0])
		err = e
		switch {
		case p <= 9:
			t.size = 4
		case p <= 18:
			t.size = 8
		case p <= 38:
			t.size = 16
		default:
			t.size = 32
		}
	case "Array", "Nullable", "LowCardinality":
		err = add(parts[0])
	case "SimpleAggregateFunction":
		return parseType(parts[1])
	case "Map":
		err = add(parts...)
	case "Tuple":
		for _, p := range parts {
			if err = add(elemType(p)); err != nil {
				break
			}
		}
	case "Nested":
		t.name = "Array"
		tup := ctype{name: "Tuple"}
		for _, p := range parts {
			c, e := parseType(elemType(p))
			if e != nil {
				return t, e
			}
			tup.args = append(tup.args, c)
		}
		t.args = []ctype{tup}
	case "Variant":
		err = add(parts...)
	default:
		err = fmt.Errorf("type %s has no Native walker", s)
	}
	return t, err
}
