package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/ClickHouse/clickhouse-go/v2"

	"github.com/luminate/luminate/storage"
)

// Exception codes of ClickHouse that mean more than "internal".
const (
	codeTooManyRows         = 158
	codeTimeoutExceeded     = 159
	codeTooSlow             = 160
	codeTableReadOnly       = 242
	codeMemoryLimit         = 241
	codeTooManyParts        = 252
	codeTooManyQueries      = 202
	codeTooManyBytes        = 307
	codeQueryCancelled      = 394
	codeResultTooLarge      = 396
	codeTooManySetBytes     = 191
	codeNoReplica           = 279
	codeKeeper              = 999
	codeUnknownStatus       = 319
	codeNetwork             = 210
	codeSocketTimeout       = 209
	codeUnknownFunction     = 46
	codeUnknownSetting      = 115
	codeSupportDisabled     = 344
	codeAuthenticationError = 516
	codeUnknownTable        = 60
	codeUnknownDatabase     = 81
)

var errStoreClosed = errors.New("the store is closed")

// translate turns a driver's error into an *storage.Error. A context that is done
// explains any error; what is no exception of the server is the network's.
func translate(ctx context.Context, op string, err error) error {
	if err == nil {
		return nil
	}
	var already *storage.Error
	if errors.As(err, &already) {
		return err
	}
	if cerr := storage.ContextError(ctx, op); cerr != nil {
		return cerr
	}
	if errors.Is(err, errStoreClosed) {
		return &storage.Error{Op: op, Kind: storage.KindUnavailable, Err: err}
	}
	var ex *clickhouse.Exception
	if !errors.As(err, &ex) {
		return &storage.Error{Op: op, Kind: storage.KindUnavailable, Err: fmt.Errorf("clickhouse does not answer: %w", err)}
	}
	return exceptionError(op, ex)
}

func exceptionError(op string, ex *clickhouse.Exception) error {
	// The message can repeat the query, and so label values: the first line is enough.
	msg, _, _ := strings.Cut(ex.Message, "\n")
	if len(msg) > 500 {
		msg = msg[:500]
	}
	err := fmt.Errorf("clickhouse answered code %d: %s", ex.Code, msg)
	limit := func(id, setting string) error {
		return &storage.Error{Op: op, Kind: storage.KindTooLarge, ID: id, Setting: setting, Err: err}
	}
	switch ex.Code {
	case codeTooManyRows:
		return limit("max-rows-to-read", "storage.clickhouse.maxRowsToRead")
	case codeTooManyBytes, codeResultTooLarge, codeTooManySetBytes:
		return limit("max-result-rows", "storage.clickhouse.maxResultRows")
	case codeMemoryLimit:
		return limit("max-query-memory", "storage.clickhouse.maxQueryMemory")
	case codeTimeoutExceeded, codeTooSlow:
		return &storage.Error{Op: op, Kind: storage.KindTimeout, ID: "max-query-time", Setting: "storage.clickhouse.queryTimeout", Err: err}
	case codeTooManyParts, codeTooManyQueries, codeTableReadOnly, codeNoReplica, codeKeeper, codeUnknownStatus, codeNetwork,
		codeSocketTimeout, codeQueryCancelled, codeAuthenticationError, codeUnknownTable, codeUnknownDatabase:
		return &storage.Error{Op: op, Kind: storage.KindUnavailable, Err: err}
	case codeUnknownFunction, codeUnknownSetting, codeSupportDisabled:
		return &storage.Error{Op: op, Kind: storage.KindUnsupported, Err: err}
	default:
		return &storage.Error{Op: op, Kind: storage.KindInternal, Err: err}
	}
}
