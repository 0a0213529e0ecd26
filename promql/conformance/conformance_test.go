package conformance_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/luminate/luminate/promql/conformance"
	"github.com/luminate/luminate/storage"
	"github.com/luminate/luminate/storage/storagetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newModel(testing.TB) storage.Store {
	cfg := storagetest.DefaultModelConfig()
	cfg.RetentionDays = 0 // the samples are of 1970
	return storagetest.NewModelWith(cfg)
}

func TestModel(t *testing.T) { conformance.Run(t, newModel) }

func TestModelPlanned(t *testing.T) { conformance.RunPlanned(t, newModel) }
