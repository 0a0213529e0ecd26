package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/luminate/luminate/storage"
)

const (
	dayMillis = 24 * 60 * 60 * 1000
	// migrateExemplarPage is how many exemplars one query of a migration asks for;
	// both stores must be able to answer so many.
	migrateExemplarPage = 100_000
	// farthestDay bounds the search for days that have data: ±270,000 years.
	farthestDay = 100_000_000
)

// migrateOptions says what to copy and how. Begin with defaultMigrateOptions.
type migrateOptions struct {
	tenants           []storage.Tenant // none: every one that the source has
	firstDay, lastDay int64            // days since 1970-01-01 UTC, inclusive
	dryRun            bool             // only count; the destination is not used
	statePath         string           // "": no state is kept
	fromName, toName  string           // what a state file belongs to
	progress          *migrateProgress // nil: none

	batchSamples  int           // samples, histograms and exemplars in a batch at most
	concurrency   int           // batches under way at once
	retries       int           // of a batch that the destination could not take
	firstRetry    time.Duration // wait before the first retry; doubled for each, up to 10 s
	exemplarsPage int           // exemplars asked for at once
}

func defaultMigrateOptions() migrateOptions {
	return migrateOptions{
		firstDay: -farthestDay, lastDay: farthestDay,
		batchSamples: 10_000, concurrency: 8, retries: 10, firstRetry: 100 * time.Millisecond,
		exemplarsPage: migrateExemplarPage,
	}
}

// migration is one run.
type migration struct {
	o        migrateOptions
	from, to storage.Store
	state    *migrateState
	report   migrateReport
}

// migrate copies what o selects from one store to the other and compares each day
// afterwards. It may be repeated after an error: appending is idempotent, and days
// that the state file has as equal are copied again only if the source says
// something else by now. The report holds what was done up to an error; days that
// differ are no error, report.failure tells of them.
func migrate(ctx context.Context, from, to storage.Store, o migrateOptions) (report migrateReport, err error) {
	m := &migration{o: o, from: from, to: to}
	if m.o.progress == nil {
		m.o.progress = newMigrateProgress(nil, nil)
	}
	if m.state, err = openMigrateState(o.statePath, o.fromName, o.toName); err != nil {
		return report, err
	}
	err = m.run(ctx)
	m.o.progress.end()
	if !o.dryRun {
		if serr := m.state.save(); err == nil {
			err = serr
		}
	}
	return m.report, err
}

// tenantDays is the work on one tenant.
type tenantDays struct {
	tenant storage.Tenant
	days   []int64
}

func (m *migration) run(ctx context.Context) error {
	work, err := m.plan(ctx)
	if err != nil {
		return err
	}
	for _, w := range work {
		if err := m.copySettings(ctx, w.tenant); err != nil {
			return fmt.Errorf("copy settings of tenant %s: %w", w.tenant, err)
		}
		for _, day := range w.days {
			if err := m.day(ctx, w.tenant, day); err != nil {
				return fmt.Errorf("copy %s of tenant %s: %w", dayName(day), w.tenant, err)
			}
		}
	}
	return nil
}

// plan lists tenants and their days with data.
func (m *migration) plan(ctx context.Context) ([]tenantDays, error) {
	stats, err := m.from.Tenants(ctx)
	if err != nil {
		return nil, fmt.Errorf("list tenants: %w", err)
	}
	var all []storage.Tenant
	for _, s := range stats {
		t, err := storage.ParseTenant(s.Tenant)
		if err != nil {
			return nil, err
		}
		all = append(all, t)
	}
	for _, t := range m.o.tenants {
		if !slices.Contains(all, t) {
			return nil, fmt.Errorf("tenant %s has no data in the source", t)
		}
	}
	if len(m.o.tenants) > 0 {
		all = m.o.tenants
	}
	var work []tenantDays
	for _, t := range all {
		w := tenantDays{tenant: t}
		if err := m.findDays(ctx, t, m.o.firstDay, m.o.lastDay, &w.days); err != nil {
			return nil, fmt.Errorf("find the days of tenant %s: %w", t, err)
		}
		m.o.progress.total += len(w.days)
		work = append(work, w)
	}
	return work, nil
}

// findDays appends the days of [first, last] that have data, by halving the range
// where there is any: no method of a Store tells the oldest sample.
func (m *migration) findDays(ctx context.Context, t storage.Tenant, first, last int64, days *[]int64) error {
	some, err := m.hasData(ctx, t, first*dayMillis, (last+1)*dayMillis-1)
	if err != nil || !some {
		return err
	}
	if first == last {
		*days = append(*days, first)
		return nil
	}
	middle := first + (last-first)/2
	if err := m.findDays(ctx, t, first, middle, days); err != nil {
		return err
	}
	return m.findDays(ctx, t, middle+1, last, days)
}

func (m *migration) hasData(ctx context.Context, t storage.Tenant, mint, maxt int64) (bool, error) {
	// Names, not series: an index lists names without looking at every series.
	names, err := m.from.LabelNames(ctx, t, storage.Selection{MinT: mint, MaxT: maxt, Limit: 1})
	if err != nil || len(names) > 0 {
		return err == nil, err
	}
	// A series may have had exemplars alone.
	found, err := m.from.Exemplars(ctx, t, storage.ExemplarQuery{Selectors: everySeries(), MinT: mint, MaxT: maxt, Limit: 1})
	return len(found) > 0, err
}

// everySeries is the selectors of an exemplar query for all.
func everySeries() [][]*storage.Matcher { return [][]*storage.Matcher{nil} }

// day copies one day and compares it.
func (m *migration) day(ctx context.Context, t storage.Tenant, day int64) error {
	m.o.progress.begin(t, day)
	known, finished := m.state.day(t, day)
	if m.o.dryRun || finished && known.Equal {
		// Reading the source again is cheap against writing, and finds what a server
		// has added to the folder since.
		now, err := m.read(ctx, m.from, t, day, false)
		if err != nil {
			return fmt.Errorf("read the source: %w", err)
		}
		if m.o.dryRun {
			m.add(dayRecord{Tenant: t.String(), Day: dayName(day), Source: now}, statusDryRun)
			return nil
		}
		if now == known.Source {
			m.add(known, statusBefore)
			return nil
		}
	}
	source, refused, err := m.copy(ctx, t, day)
	if err != nil {
		return err
	}
	arrived, err := m.read(ctx, m.to, t, day, true)
	if err != nil {
		return fmt.Errorf("read back from the destination: %w", err)
	}
	expected := source
	expected.remove(refused.sum)
	r := dayRecord{
		Tenant: t.String(), Day: dayName(day), Source: source, Arrived: arrived, Refused: refused.reasons,
		Equal: expected.sameData(arrived),
	}
	status := statusOK
	if !r.Equal {
		status = statusDifferent
	}
	m.add(r, status)
	return m.state.finish(r)
}

func (m *migration) add(r dayRecord, status string) {
	m.report.days = append(m.report.days, reportedDay{dayRecord: r, status: status})
	m.o.progress.finished(r, status)
}

// copySettings copies retention policies first, because they decide what the
// destination takes, then metadata, and looks whether they are there.
func (m *migration) copySettings(ctx context.Context, t storage.Tenant) error {
	policies, err := m.from.Retention(ctx, t)
	if err != nil {
		return err
	}
	entries, err := m.from.Metadata(ctx, t, storage.MetadataQuery{})
	if err != nil {
		return err
	}
	r := reportedSettings{tenant: t.String(), policies: len(policies), metadata: len(entries), status: statusDryRun}
	if m.o.dryRun {
		m.report.settings = append(m.report.settings, r)
		return nil
	}
	for _, p := range policies {
		if err := m.to.SetRetention(ctx, t, p); err != nil {
			return fmt.Errorf("set retention of %q: %w", p.Metric, err)
		}
	}
	for part := range slices.Chunk(entries, m.o.batchSamples) {
		if _, err := m.append(ctx, t, &storage.Batch{Metadata: part}); err != nil {
			return fmt.Errorf("append metadata: %w", err)
		}
	}
	if r.status, err = m.compareSettings(ctx, t, policies, entries); err != nil {
		return err
	}
	m.report.settings = append(m.report.settings, r)
	return nil
}

// compareSettings demands every policy and entry; the destination may have others.
func (m *migration) compareSettings(ctx context.Context, t storage.Tenant, policies []storage.RetentionPolicy, entries []storage.Metadata) (string, error) {
	gotPolicies, err := m.to.Retention(ctx, t)
	if err != nil {
		return "", err
	}
	gotEntries, err := m.to.Metadata(ctx, t, storage.MetadataQuery{})
	if err != nil {
		return "", err
	}
	there := make(map[storage.Metadata]bool, len(gotEntries))
	for _, e := range gotEntries {
		there[e] = true
	}
	for _, p := range policies {
		if !slices.Contains(gotPolicies, p) {
			return statusDifferent, nil
		}
	}
	for _, e := range entries {
		if !there[e] {
			return statusDifferent, nil
		}
	}
	return statusOK, nil
}

func dayName(day int64) string {
	return time.UnixMilli(day * dayMillis).UTC().Format(time.DateOnly)
}
