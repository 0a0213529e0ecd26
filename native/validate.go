package native

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// unitHint names the unit that would make t a good timestamp.
func unitHint(t float64, mint, maxt int64) string {
	for _, u := range []struct {
		name string
		ms   float64
	}{{"seconds", 1e3}, {"microseconds", 1e-3}, {"nanoseconds", 1e-6}} {
		// A day more on each side: a clock that is wrong is wrong in any unit.
		const day = 24 * 3600 * 1000
		if ms := t * u.ms; ms >= float64(mint-day) && ms <= float64(maxt+day) || u.ms == 1e3 && t >= 1e8 && t < 1e10 {
			return " (looks like " + u.name + ": Luminate takes milliseconds)"
		}
	}
	return ""
}

// clipText bounds text of the caller in messages and owns its memory.
func clipText(s string) string {
	const most = 128
	if len(s) <= most {
		return strings.Clone(s)
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

var nameByte, nameStart = func() (all, start [256]bool) {
	for c := range all {
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '_'
		start[c], all[c] = letter, letter || '0' <= c && c <= '9'
	}
	return all, start
}()

// ReservedTenantDimension can be neither a metric's name nor a dimension: a tenant
// is never a label.
const ReservedTenantDimension = "_tenant_id"

// badName says why s cannot be the name of a metric or dimension, "" if it can.
func badName(s string, most int, setting string) string {
	switch {
	case s == "":
		return "is empty"
	case len(s) > most:
		return fmt.Sprintf("has %d bytes, at most %d are allowed (%s)", len(s), most, setting)
	case !nameStart[s[0]]:
		return "must begin with a letter or '_'"
	case len(s) > 1 && s[:2] == "__", s == ReservedTenantDimension:
		return "is reserved"
	}
	for i := range len(s) {
		if !nameByte[s[i]] {
			return fmt.Sprintf("has %q at position %d: letters, digits and '_' are allowed", s[i], i)
		}
	}
	return ""
}

// badDimensionValue says why s cannot be a dimension's value, "" if it can. Only
// a wide text can be ill-formed or hold control characters: the scanner sets wide
// for every escape, too.
func badDimensionValue(s string, wide bool, most int) string {
	switch {
	case s == "":
		return "is empty"
	case len(s) > most:
		return fmt.Sprintf("has %d bytes, at most %d are allowed (limits.maxDimensionValueBytes)", len(s), most)
	case wide && !utf8.ValidString(s):
		return "is not valid UTF-8"
	case wide && strings.IndexFunc(s, unicode.IsControl) >= 0, !wide && strings.IndexByte(s, 0x7f) >= 0:
		return "has a control character"
	}
	return ""
}
