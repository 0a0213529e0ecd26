package native

import (
	"fmt"
	"regexp"
	"strconv"
	"time"
	_ "time/tzdata" // minimal images have no zone files

	"github.com/prometheus/common/model"
)

// interval is the width of buckets: fixed milliseconds aligned to the Unix epoch,
// or calendar days (weeks are seven, from Monday on) or months in a time zone.
type interval struct {
	text         string
	fixed        int64
	days, months int
	loc          *time.Location
}

var calendarInterval = regexp.MustCompile(`^([1-9][0-9]{0,3})([dwM])$`)

// mondayDay is the day number, from 1970-01-01, of the first Monday after it.
const mondayDay = 4

const dayMillis = 24 * 3600 * 1000

func parseInterval(s, zone string) (interval, error) {
	iv := interval{text: s, loc: time.UTC}
	if zone != "" {
		loc, err := time.LoadLocation(zone)
		if err != nil || zone == "Local" {
			return iv, badQuery("timezone %q is not known: an IANA name as Europe/Berlin is needed", clipText(zone))
		}
		iv.loc = loc
	}
	if m := calendarInterval.FindStringSubmatch(s); m != nil {
		n, _ := strconv.Atoi(m[1])
		switch m[2] {
		case "d":
			iv.days = n
		case "w":
			iv.days = 7 * n
		default:
			iv.months = n
		}
		return iv, nil
	}
	d, err := model.ParseDuration(s)
	if err != nil || d <= 0 {
		return iv, badQuery("interval %q is not a duration as 30s, 5m, 1h, 1d, 1w or 1M", clipText(s))
	}
	iv.fixed = time.Duration(d).Milliseconds()
	return iv, nil
}

// shortest is a lower bound of a bucket's width in milliseconds.
func (iv interval) shortest() int64 {
	switch {
	case iv.fixed > 0:
		return iv.fixed
	case iv.months > 0:
		return int64(iv.months) * 28 * dayMillis
	default:
		return int64(iv.days)*dayMillis - 2*3600*1000 // the clocks go forward
	}
}

// floor returns the start of the bucket that t lies in.
func (iv interval) floor(t int64) int64 {
	if iv.fixed > 0 {
		return t - mod(t, iv.fixed)
	}
	y, m, d := time.UnixMilli(t).In(iv.loc).Date()
	if iv.months > 0 {
		n := int64(y)*12 + int64(m) - 1
		n -= mod(n-1970*12, int64(iv.months))
		return time.Date(int(n/12), time.Month(n%12)+1, 1, 0, 0, 0, 0, iv.loc).UnixMilli()
	}
	day := time.Date(y, m, d, 0, 0, 0, 0, time.UTC).Unix() / (24 * 3600)
	base := int64(0)
	if iv.days%7 == 0 {
		base = mondayDay
	}
	return time.Date(y, m, d-int(mod(day-base, int64(iv.days))), 0, 0, 0, 0, iv.loc).UnixMilli()
}

// next returns the start of the bucket after the one that starts at t.
func (iv interval) next(t int64) int64 {
	if iv.fixed > 0 {
		return t + iv.fixed
	}
	// Where midnight does not exist the bucket starts at one o'clock: Date says the
	// right day still.
	y, m, d := time.UnixMilli(t).In(iv.loc).Date()
	return time.Date(y, m+time.Month(iv.months), d+iv.days, 0, 0, 0, 0, iv.loc).UnixMilli()
}

func mod(a, b int64) int64 {
	m := a % b
	if m < 0 {
		m += b
	}
	return m
}

// buckets cuts [start, end) into buckets: labels are their starts, edges the
// right-closed edges of a Grid (bucket i is (edges[i], edges[i+1]], which is one
// millisecond less than [start, end)). The first and the last bucket hold what of
// them lies in the range.
func (iv interval) buckets(start, end int64, most int) (labels, edges []int64, err error) {
	if n := (end-start)/iv.shortest() + 2; n > int64(most)+2 {
		return nil, nil, tooManyPoints(n-2, most, iv.text)
	}
	edges = append(edges, start-1)
	for t := iv.floor(start); t < end; {
		next := iv.next(t)
		labels = append(labels, t)
		edges = append(edges, min(next, end)-1)
		t = next
	}
	if len(labels) > most {
		return nil, nil, tooManyPoints(int64(len(labels)), most, iv.text)
	}
	return labels, edges, nil
}

func tooManyPoints(asked int64, most int, text string) *Error {
	return overLimit("maxPoints", most, asked, "interval %s makes %d points in a group, at most %d are allowed: take a longer interval or a shorter range", text, asked, most)
}

// parseSpan reads a positive Prometheus duration of a query's field.
func parseSpan(field, s string) (time.Duration, error) {
	d, err := model.ParseDuration(s)
	if err != nil || d <= 0 {
		return 0, badQuery("%s %q is not a duration as 30s, 5m, 1h or 7d", field, clipText(s))
	}
	return time.Duration(d), nil
}

// span renders d as a PromQL range, exactly.
func span(ms int64) string {
	return model.Duration(time.Duration(ms) * time.Millisecond).String()
}

func formatDays(d time.Duration) string {
	if d%(24*time.Hour) == 0 {
		return fmt.Sprintf("%dd", d/(24*time.Hour))
	}
	return model.Duration(d).String()
}
