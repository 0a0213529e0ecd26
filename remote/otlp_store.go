package remote

import (
	"context"
	"fmt"
	"strings"

	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/storage/remote/otlptranslator/prometheusremotewrite"
	"github.com/prometheus/prometheus/util/annotations"
	"go.opentelemetry.io/collector/pdata/pmetric"
	"go.opentelemetry.io/collector/pdata/pmetric/pmetricotlp"

	"github.com/luminate/luminate/storage"
)

// rejections collects what an OTLP request was refused: data points by number, and
// the first reasons by name.
type rejections struct {
	points   int64
	messages []string
	more     int
}

func (r *rejections) add(points int, message string) {
	r.points += int64(points)
	r.note(message)
}

// note tells of something that is no data point.
func (r *rejections) note(message string) {
	if len(r.messages) < maxNamedRefusals {
		r.messages = append(r.messages, message)
		return
	}
	r.more++
}

func (r *rejections) text() string {
	s := strings.Join(r.messages, "; ")
	if r.more > 0 {
		s += fmt.Sprintf("; and %d more", r.more)
	}
	return s
}

// settings are the translator's.
func (c *OTLPConfig) settings() prometheusremotewrite.Settings {
	return prometheusremotewrite.Settings{
		AddMetricSuffixes: c.TranslationStrategy.ShouldAddSuffixes(),
		AllowUTF8:         !c.TranslationStrategy.ShouldEscape(),
		PromoteResourceAttributes: prometheusremotewrite.NewPromoteResourceAttributes(config.OTLPConfig{
			PromoteAllResourceAttributes: c.PromoteAllResourceAttributes,
			PromoteResourceAttributes:    c.PromoteResourceAttributes,
			IgnoreResourceAttributes:     c.IgnoreResourceAttributes,
		}),
		KeepIdentifyingResourceAttributes:    c.KeepIdentifyingResourceAttributes,
		ConvertHistogramsToNHCB:              c.ConvertHistogramsToNHCB,
		PromoteScopeMetadata:                 c.PromoteScopeMetadata,
		LookbackDelta:                        c.LookbackDelta,
		LabelNameUnderscoreSanitization:      c.LabelNameUnderscoreSanitization,
		LabelNamePreserveMultipleUnderscores: c.LabelNamePreserveMultipleUnderscores,
	}
}

// storeOTLP translates the metrics into the batch, appends it, and builds the
// answer.
func (a *API) storeOTLP(ctx context.Context, t storage.Tenant, md pmetric.Metrics, batch *storage.Batch) (pmetricotlp.ExportResponse, error) {
	resp := pmetricotlp.NewExportResponse()
	var rejected rejections
	screenTemporality(md, &rejected)
	app := newBatchAppender(batch, a.cfg.shapeOf(t), a.cfg.MaxBatchBytes)
	if err := a.translate(ctx, md, app, &rejected); err != nil {
		return resp, err
	}
	app.finish()
	res, err := a.append(ctx, t, batch, &app.refused, "otlp")
	if err != nil {
		return resp, err
	}
	app.addStored(res.Refused)
	a.tellRefused(t, "otlp", &app.refused)
	rejected.points += int64(app.rejectedPoints())
	for _, n := range app.refused.named {
		rejected.note(n.Message)
	}
	rejected.more += app.refused.unnamed()
	if rejected.points > 0 || len(rejected.messages) > 0 {
		resp.PartialSuccess().SetRejectedDataPoints(rejected.points)
		resp.PartialSuccess().SetErrorMessage(rejected.text())
	}
	return resp, nil
}

// translate converts all metrics. The translator gives up on a metric at its first
// bad data point, so after an error the bad points are looked for one by one and
// taken out, and the rest is converted again.
func (a *API) translate(ctx context.Context, md pmetric.Metrics, app *batchAppender, rejected *rejections) error {
	settings := a.cfg.OTLP.settings()
	if n := targetInfoSamples(md, settings.LookbackDelta/2); n > maxTargetInfo {
		settings.DisableTargetInfo = true
		rejected.note(fmt.Sprintf("no target_info is stored: the timestamps of the request are so far apart that it would take %d samples", n))
	}
	convert := func() error {
		warnings, err := prometheusremotewrite.NewPrometheusConverter(app).FromMetrics(ctx, md, settings)
		a.noteWarnings(ctx, warnings)
		if cerr := storage.ContextError(ctx, "translate"); cerr != nil {
			return cerr
		}
		if app.full != nil {
			return app.full
		}
		return err
	}
	err := convert()
	if err == nil || app.full != nil || ctx.Err() != nil {
		return err
	}
	if err := pruneBadPoints(ctx, md, settings, rejected); err != nil {
		return err
	}
	app.restart()
	if err = convert(); err != nil && app.full == nil && ctx.Err() == nil {
		// Every point is good by itself: what is left is the resource's target_info.
		rejected.note(err.Error())
		return nil
	}
	return err
}

// noteWarnings counts what the translator found odd but stored all the same.
func (a *API) noteWarnings(ctx context.Context, warnings annotations.Annotations) {
	if len(warnings) == 0 {
		return
	}
	for category, n := range prometheusremotewrite.CountWarningsByCategory(warnings) {
		a.metrics.otlpWarns.WithLabelValues(string(category)).Add(float64(n))
	}
	texts, _ := warnings.AsStrings("", maxNamedRefusals, 0)
	a.log.DebugContext(ctx, "OTLP translation", "warnings", texts)
}
