package conformance_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/luminate/luminate/promql/conformance"
	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/storagetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestModel(t *testing.T) {
	cfg := storagetest.DefaultModelConfig()
	cfg.RetentionDays = 0 // the samples are of 1970
	conformance.Run(t, func(testing.TB) storage.Store { return storagetest.NewModelWith(cfg) })
}
