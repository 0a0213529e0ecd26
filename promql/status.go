package promql

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	jsoniter "github.com/json-iterator/go"

	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/tenancy"
)

// PrometheusVersion is the version of Prometheus whose API this package serves.
// Grafana derives from it which requests it may send.
const PrometheusVersion = "3.16.0"

// statusRange is how far back status/tsdb counts series by default: the span of a
// Prometheus head.
const statusRange = 3 * time.Hour

// maxStatusLimit bounds the lists of status/tsdb.
const maxStatusLimit = 10_000

type buildInfo struct {
	Version   string `json:"version"`
	Revision  string `json:"revision"`
	Branch    string `json:"branch"`
	BuildUser string `json:"buildUser"`
	BuildDate string `json:"buildDate"`
	GoVersion string `json:"goVersion"`
}

// serveBuildInfo tells Prometheus's version and names Luminate's own in the
// branch. It has no "features": with them Grafana would take this for Mimir and
// ask for its ruler.
func (a *API) serveBuildInfo(*http.Request) (answer, *apiError) {
	i := a.cfg.Info
	branch := "luminate"
	if i.Version != "" {
		branch = "luminate-" + i.Version
	}
	return value(buildInfo{PrometheusVersion, i.Revision, branch, i.BuildUser, i.BuildDate, runtime.Version()}), nil
}

type runtimeInfo struct {
	StartTime           time.Time `json:"startTime"`
	CWD                 string    `json:"CWD"`
	Hostname            string    `json:"hostname"`
	ServerTime          time.Time `json:"serverTime"`
	ReloadConfigSuccess bool      `json:"reloadConfigSuccess"`
	LastConfigTime      time.Time `json:"lastConfigTime"`
	CorruptionCount     int64     `json:"corruptionCount"`
	GoroutineCount      int       `json:"goroutineCount"`
	GOMAXPROCS          int       `json:"GOMAXPROCS"`
	GOMEMLIMIT          int64     `json:"GOMEMLIMIT"`
	GOGC                string    `json:"GOGC"`
	GODEBUG             string    `json:"GODEBUG"`
	StorageRetention    string    `json:"storageRetention"`
}

func (a *API) serveRuntimeInfo(*http.Request) (answer, *apiError) {
	cwd, err := os.Getwd()
	if err != nil {
		cwd = "<error retrieving current working directory>"
	}
	host, err := os.Hostname()
	if err != nil {
		host = "<error retrieving hostname>"
	}
	i := a.cfg.Info
	return value(runtimeInfo{
		StartTime: i.Started.UTC(), CWD: cwd, Hostname: host, ServerTime: a.now().UTC(),
		ReloadConfigSuccess: true, LastConfigTime: i.Started.UTC(),
		GoroutineCount: runtime.NumGoroutine(), GOMAXPROCS: runtime.GOMAXPROCS(0),
		GOMEMLIMIT: debug.SetMemoryLimit(-1), GOGC: os.Getenv("GOGC"), GODEBUG: os.Getenv("GODEBUG"),
		StorageRetention: i.Retention,
	}), nil
}

func (a *API) serveFlags(*http.Request) (answer, *apiError) {
	flags := a.cfg.Info.Flags
	if flags == nil {
		flags = map[string]string{}
	}
	return value(flags), nil
}

func (a *API) serveConfig(*http.Request) (answer, *apiError) {
	text := ""
	if f := a.cfg.Info.ConfigYAML; f != nil {
		text = f()
	}
	return value(struct {
		YAML string `json:"yaml"`
	}{text}), nil
}

var plainJSON = jsoniter.Config{SortMapKeys: true}.Froze()

func (a *API) serveFeatures(*http.Request) (answer, *apiError) {
	return answer{encode: func(e *encoder) {
		b, err := plainJSON.Marshal(a.features.Get()) // operators such as >= stay readable
		if err != nil {
			panic("promql: encode features: " + err.Error())
		}
		_, _ = e.Write(b)
	}}, nil
}

// serveRules validates what Prometheus validates and answers that there are none.
func (a *API) serveRules(r *http.Request) (answer, *apiError) {
	if err := r.ParseForm(); err != nil {
		return answer{}, badData(fmt.Errorf("error parsing form values: %w", err))
	}
	if _, err := parseMatchers(a.parser, r.Form["match[]"]); err != nil {
		return answer{}, badData(err)
	}
	q := r.URL.Query()
	if typ := strings.ToLower(q.Get("type")); typ != "" && typ != "alert" && typ != "record" {
		return answer{}, paramError("type", fmt.Errorf("not supported value %q", typ))
	}
	if s := strings.ToLower(q.Get("exclude_alerts")); s != "" {
		if _, err := strconv.ParseBool(s); err != nil {
			return answer{}, paramError("exclude_alerts", fmt.Errorf("error converting exclude_alerts: %w", err))
		}
	}
	if apiErr := checkGroupPage(q.Get("group_limit"), q.Get("group_next_token")); apiErr != nil {
		return answer{}, apiErr
	}
	return value(struct {
		Groups []struct{} `json:"groups"`
	}{[]struct{}{}}), nil
}

func checkGroupPage(limit, token string) *apiError {
	if limit == "" {
		if token != "" {
			return paramError("group_next_token", errors.New("group_limit needs to be present in order to paginate over the groups"))
		}
		return nil
	}
	n, err := strconv.ParseInt(limit, 10, 32)
	switch {
	case err != nil:
		return paramError("group_limit", fmt.Errorf("group_limit needs to be a valid number: %w", err))
	case n <= 0:
		return paramError("group_limit", errors.New("group_limit needs to be greater than 0"))
	case token != "":
		return paramError("group_next_token", fmt.Errorf("invalid group_next_token '%v'. were rule groups changed?", token))
	}
	return nil
}

func (a *API) serveAlerts(*http.Request) (answer, *apiError) {
	return value(struct {
		Alerts []struct{} `json:"alerts"`
	}{[]struct{}{}}), nil
}

func (a *API) serveTargets(r *http.Request) (answer, *apiError) {
	state := strings.ToLower(r.URL.Query().Get("state"))
	res := struct {
		Active  []struct{}     `json:"activeTargets"`
		Dropped []struct{}     `json:"droppedTargets"`
		Counts  map[string]int `json:"droppedTargetCounts"`
	}{Active: []struct{}{}, Dropped: []struct{}{}}
	if state == "" || state == "any" || state == "dropped" {
		res.Counts = map[string]int{}
	}
	return value(res), nil
}

type tsdbStat struct {
	Name  string `json:"name"`
	Value uint64 `json:"value"`
}

type headStats struct {
	NumSeries     uint64 `json:"numSeries"`
	NumLabelPairs uint64 `json:"numLabelPairs"`
	ChunkCount    int64  `json:"chunkCount"`
	MinTime       int64  `json:"minTime"`
	MaxTime       int64  `json:"maxTime"`
}

type tsdbStatus struct {
	HeadStats                   headStats  `json:"headStats"`
	SeriesCountByMetricName     []tsdbStat `json:"seriesCountByMetricName"`
	LabelValueCountByLabelName  []tsdbStat `json:"labelValueCountByLabelName"`
	MemoryInBytesByLabelName    []tsdbStat `json:"memoryInBytesByLabelName"`
	SeriesCountByLabelValuePair []tsdbStat `json:"seriesCountByLabelValuePair"`
}

func (a *API) serveTSDBStatus(r *http.Request) (answer, *apiError) {
	limit := 10
	if s := r.FormValue("limit"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			return answer{}, badData(errors.New("limit must be a positive number"))
		}
		if n > maxStatusLimit {
			return answer{}, badData(fmt.Errorf("limit must not exceed %d", maxStatusLimit))
		}
		limit = n
	}
	sel, apiErr := a.statusSelection(r)
	if apiErr != nil {
		return answer{}, apiErr
	}
	if sel.MinT > sel.MaxT {
		return answer{}, badData(errors.New("end timestamp must not be before start timestamp"))
	}
	ctx := r.Context()
	c, err := a.store.Cardinality(ctx, tenancy.TenantOf(ctx), storage.CardinalityQuery{Selection: sel, TopN: limit})
	if err != nil {
		return answer{}, storeError(err)
	}
	return value(tsdbStatus{
		HeadStats: headStats{
			NumSeries: c.Series, NumLabelPairs: c.TotalLabelPairs, MinTime: sel.MinT, MaxTime: sel.MaxT,
		},
		SeriesCountByMetricName:     tsdbStats(c.Metrics),
		LabelValueCountByLabelName:  tsdbStats(c.LabelValueCounts),
		MemoryInBytesByLabelName:    tsdbStats(c.LabelMemoryInBytes),
		SeriesCountByLabelValuePair: tsdbStats(c.LabelPairs),
	}), nil
}

func (a *API) statusSelection(r *http.Request) (storage.Selection, *apiError) {
	now := a.now()
	start, apiErr := timeParam(r, "start", now.Add(-statusRange))
	if apiErr != nil {
		return storage.Selection{}, apiErr
	}
	end, apiErr := timeParam(r, "end", now.Add(time.Hour)) // what is accepted ahead of time counts
	if apiErr != nil {
		return storage.Selection{}, apiErr
	}
	sel := storage.Selection{MinT: milliseconds(start), MaxT: milliseconds(end)}
	sets, err := parseMatchers(a.parser, r.Form["match[]"])
	switch {
	case err != nil:
		return sel, badData(err)
	case len(sets) > 1:
		return sel, badData(errors.New("only one match[] parameter can be given"))
	case len(sets) == 1:
		sel.Matchers = sets[0]
	}
	return sel, nil
}

func tsdbStats(counts []storage.Count) []tsdbStat {
	out := make([]tsdbStat, 0, len(counts))
	for _, c := range counts {
		out = append(out, tsdbStat{c.Name, c.Count})
	}
	return out
}
