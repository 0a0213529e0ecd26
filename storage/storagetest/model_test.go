package storagetest

import (
	"testing"

	"github.com/luminate/luminate/storage"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestModelConforms(t *testing.T) {
	Run(t, func(testing.TB) storage.Store { return NewModel() }, Options{})
}

func TestFaultyConforms(t *testing.T) {
	Run(t, func(testing.TB) storage.Store { return NewFaulty(NewModel(), nil) }, Options{})
}

func BenchmarkModel(b *testing.B) {
	Bench(b, func(testing.TB) storage.Store { return NewModel() })
}
