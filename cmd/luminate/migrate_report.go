package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/luminate/luminate/storage"
)

// What a report says of a day or of a tenant's settings.
const (
	statusOK        = "OK"
	statusBefore    = "OK (before)" // an earlier run found it equal; the source has not changed
	statusDifferent = "DIFFERENT"
	statusDryRun    = "dry run"
)

// migrateReport is what a migration did.
type migrateReport struct {
	days     []reportedDay
	settings []reportedSettings
}

type reportedDay struct {
	dayRecord
	status string
}

// reportedSettings tells of a tenant's retention policies and metadata.
type reportedSettings struct {
	tenant             string
	policies, metadata int
	status             string
}

// print writes the tables. A day that differs has a second line with what the
// destination has.
func (r migrateReport) print(w io.Writer) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "TENANT\tPOLICIES\tMETADATA\tSTATUS")
	for _, s := range r.settings {
		fmt.Fprintf(t, "%s\t%d\t%d\t%s\n", s.tenant, s.policies, s.metadata, s.status)
	}
	_ = t.Flush()
	fmt.Fprintln(w)
	fmt.Fprintln(t, "TENANT\tDAY\tSERIES\tSAMPLES\tHISTOGRAMS\tEXEMPLARS\tREFUSED\tHASH\tSTATUS")
	line := func(tenant, day string, f fingerprint, refused, status string) {
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%d\t%d\t%s\t%s\t%s\n", tenant, day, f.Series, f.Samples, f.Histograms, f.Exemplars, refused, f.Hash, status)
	}
	for _, d := range r.days {
		line(d.Tenant, d.Day, d.Source, refusedText(d.Refused), d.status)
		if d.status == statusDifferent {
			line("", "arrived:", d.Arrived, "", "")
		}
	}
	_ = t.Flush()
	if all := r.refused(); len(all) > 0 {
		fmt.Fprintf(w, "\nrefused by the destination, and not there: %s\n", refusedText(all))
	}
}

func refusedText(m map[storage.RefusalReason]uint64) string {
	if len(m) == 0 {
		return "0"
	}
	var parts []string
	for _, reason := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, fmt.Sprintf("%s=%d", reason, m[reason]))
	}
	return strings.Join(parts, ",")
}

func (r migrateReport) refused() map[storage.RefusalReason]uint64 {
	all := map[storage.RefusalReason]uint64{}
	for _, d := range r.days {
		for reason, n := range d.Refused {
			all[reason] += n
		}
	}
	return all
}

// failure is nil if everything has arrived that the destination's retention lets it
// keep.
func (r migrateReport) failure() error {
	var parts []string
	settings, days := 0, 0
	for _, s := range r.settings {
		if s.status == statusDifferent {
			settings++
		}
	}
	for _, d := range r.days {
		if d.status == statusDifferent {
			days++
		}
	}
	if days > 0 {
		parts = append(parts, fmt.Sprintf("%d of %d days differ", days, len(r.days)))
	}
	if settings > 0 {
		parts = append(parts, fmt.Sprintf("the settings of %d of %d tenants differ", settings, len(r.settings)))
	}
	refused := r.refused()
	delete(refused, storage.ReasonTooOld)
	if len(refused) > 0 {
		parts = append(parts, "the destination refused "+refusedText(refused))
	}
	if len(parts) == 0 {
		return nil
	}
	return fmt.Errorf("the migration is not complete: %s", strings.Join(parts, "; "))
}

// migrateProgress tells how far a migration is: on a terminal by a line that is
// written over, elsewhere by a line in the log for each day. All of its methods are
// called by one goroutine.
type migrateProgress struct {
	w       io.Writer // nil: not a terminal
	log     *slog.Logger
	total   int // days
	done    int
	samples uint64
	began   time.Time
	drawn   time.Time
	tenant  string
	day     string
}

// The bar's width, and the shortest time between two drawings of it.
const (
	progressWidth    = 30
	progressInterval = 200 * time.Millisecond
)

// newMigrateProgress writes to w if it is a terminal, else to log; nil is nowhere.
func newMigrateProgress(w io.Writer, log *slog.Logger) *migrateProgress {
	p := &migrateProgress{log: log, began: time.Now()}
	if f, ok := w.(*os.File); ok {
		if st, err := f.Stat(); err == nil && st.Mode()&os.ModeCharDevice != 0 {
			p.w = w
		}
	}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	return p
}

func (p *migrateProgress) begin(t storage.Tenant, day int64) {
	p.tenant, p.day = t.String(), dayName(day)
	p.draw(false)
}

// moved counts what is on its way.
func (p *migrateProgress) moved(n int) {
	p.samples += uint64(n)
	p.draw(false)
}

func (p *migrateProgress) finished(r dayRecord, status string) {
	p.done++
	if p.w != nil {
		p.draw(p.done == p.total)
		return
	}
	level := slog.LevelInfo
	if status == statusDifferent {
		level = slog.LevelError
	}
	p.log.Log(context.Background(), level, "migrated a day", "tenant", r.Tenant, "day", r.Day, "series", r.Source.Series, "samples", r.Source.Samples,
		"histograms", r.Source.Histograms, "refused", refusedText(r.Refused), "status", status, "done", p.done, "of", p.total)
}

// draw draws the line, at most every progressInterval unless forced.
func (p *migrateProgress) draw(force bool) {
	if p.w == nil || !force && time.Since(p.drawn) < progressInterval {
		return
	}
	p.drawn = time.Now()
	full := progressWidth * p.done / max(p.total, 1)
	rate := float64(p.samples) / max(time.Since(p.began).Seconds(), 0.001)
	fmt.Fprintf(p.w, "\r[%s%s] %d/%d days  %s %s  %d samples  %.0f/s\x1b[K",
		strings.Repeat("#", full), strings.Repeat("-", progressWidth-full), p.done, p.total, p.tenant, p.day, p.samples, rate)
}

// end leaves the line as it is.
func (p *migrateProgress) end() {
	if p.w != nil && !p.drawn.IsZero() {
		fmt.Fprintln(p.w)
	}
}
