package storage

import (
	"cmp"
	"slices"
	"strings"
)

// DefaultRetentionDays is kept where no policy matches and none is configured.
const DefaultRetentionDays = 30

// MaxRetentionDays bounds a policy; about 179 years, what fits a day count of 16 bits.
const MaxRetentionDays = 65535

// RetentionPolicy keeps the samples of the metrics that match Metric for so many
// days. Metric is a literal name or a pattern in which each * stands for any
// bytes.
type RetentionPolicy struct {
	Metric string
	Days   int // 1 to MaxRetentionDays; 0 keeps for ever
}

// Validate checks the pattern and the days; errors are KindInvalid.
func (p RetentionPolicy) Validate() error {
	if p.Metric == "" || len(p.Metric) > 1024 {
		return Errorf(KindInvalid, "retention", "metric pattern must have 1 to 1024 bytes, it has %d", len(p.Metric))
	}
	if p.Days < 0 || p.Days > MaxRetentionDays {
		return Errorf(KindInvalid, "retention", "retention of %q must be 0 (for ever) to %d days, it is %d", p.Metric, MaxRetentionDays, p.Days)
	}
	return nil
}

// SortRetention orders policies from the most specific pattern to the least:
// literals first, then by the number of literal bytes, then by the pattern.
func SortRetention(ps []RetentionPolicy) {
	slices.SortFunc(ps, func(a, b RetentionPolicy) int {
		aw, bw := strings.Contains(a.Metric, "*"), strings.Contains(b.Metric, "*")
		if aw != bw {
			if aw {
				return 1
			}
			return -1
		}
		if c := cmp.Compare(literalBytes(b.Metric), literalBytes(a.Metric)); c != 0 {
			return c
		}
		return strings.Compare(a.Metric, b.Metric)
	})
}

func literalBytes(pattern string) int { return len(pattern) - strings.Count(pattern, "*") }

// RetentionOf returns the days that metric is kept: the first match in ps, which
// are sorted by SortRetention, else defaultDays. 0 is for ever.
func RetentionOf(ps []RetentionPolicy, metric string, defaultDays int) int {
	for _, p := range ps {
		if MatchPattern(p.Metric, metric) {
			return p.Days
		}
	}
	return defaultDays
}

// MatchPattern tells whether name fits pattern, in which * stands for any bytes.
// It takes time linear in the product of the lengths at worst, and no memory.
func MatchPattern(pattern, name string) bool {
	p, n, star, mark := 0, 0, -1, 0
	for n < len(name) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, n
			p++
		case p < len(pattern) && pattern[p] == name[n]:
			p++
			n++
		case star >= 0:
			mark++
			p, n = star+1, mark
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}
