package conformance_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/luminate/luminate/promql/conformance"
	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/storagetest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// glog, which Badger's dependencies import, flushes for ever.
		goleak.IgnoreTopFunction("github.com/golang/glog.(*fileSink).flushDaemon"),
		// opencensus, of the same origin, starts its worker on import.
		goleak.IgnoreTopFunction("go.opencensus.io/stats/view.(*worker).start"),
	)
}

func newModel(testing.TB) storage.Store {
	cfg := storagetest.DefaultModelConfig()
	cfg.RetentionDays = 0 // the samples are of 1970
	return storagetest.NewModelWith(cfg)
}

func TestModel(t *testing.T) {
	t.Parallel()
	conformance.Run(t, newModel)
}
