package bigquery

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"cloud.google.com/go/bigquery/storage/apiv1/storagepb"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const (
	maxAppendBytes = 10 << 20
	pendingTTL     = 24 * time.Hour
	defaultStream  = "_default"
	// maxRowErrors bounds the row errors of one answer.
	maxRowErrors = 50
)

// writeStreams are the explicit streams of the Storage Write API.
type writeStreams struct {
	mu      sync.Mutex
	streams map[string]*writeStream
	created map[string]*window // by project
}

// writeStream is one PENDING or COMMITTED stream. Rows of a PENDING one wait
// in memory until the commit, so that nothing of them is visible before.
type writeStream struct {
	mu        sync.Mutex
	name      string
	kind      storagepb.WriteStream_Type
	table     *table
	created   time.Time
	committed time.Time
	finalized bool
	next      int64
	batches   []*rowBatch
}

type writeService struct {
	storagepb.UnimplementedBigQueryWriteServer
	s *Server
}

var (
	tablePath  = regexp.MustCompile(`^projects/([^/]+)/datasets/([^/]+)/tables/([^/]+)$`)
	streamPath = regexp.MustCompile(`^(projects/[^/]+/datasets/[^/]+/tables/[^/]+)(?:/streams)?/([^/]+)$`)
)

// storageError is a status with the StorageError detail that BigQuery gives.
func storageError(code codes.Code, kind storagepb.StorageError_StorageErrorCode, entity, format string, args ...any) error {
	message := fmt.Sprintf(format, args...) + " Entity: " + entity
	detail, err := anypb.New(&storagepb.StorageError{Code: kind, Entity: entity, ErrorMessage: message})
	if err != nil {
		return status.Errorf(codes.Internal, "%v", err)
	}
	return status.FromProto(&spb.Status{Code: int32(code), Message: message, Details: []*anypb.Any{detail}}).Err()
}

func (s *Server) interceptUnary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	method := info.FullMethod[strings.LastIndexByte(info.FullMethod, '/')+1:]
	if err := s.obs.around(method, Before, req); err != nil {
		return nil, rpcError(err)
	}
	resp, err := handler(ctx, req)
	if err != nil {
		return nil, rpcError(err)
	}
	if err := s.obs.around(method, After, req); err != nil {
		return nil, rpcError(err)
	}
	return resp, nil
}

// rpcError gives every error a code, so that a fault of the emulator is seen
// as one.
func rpcError(err error) error {
	if _, ok := status.FromError(err); ok {
		return err
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, errClosing) {
		return status.Errorf(codes.Canceled, "%v", err)
	}
	return status.Errorf(codes.Internal, "%v", err)
}

// writable finds the table of a path projects/p/datasets/d/tables/t.
func (w *writeService) writable(path string) (*table, error) {
	m := tablePath.FindStringSubmatch(path)
	if m == nil {
		return nil, status.Errorf(codes.InvalidArgument, "Invalid table path: %q", path)
	}
	if strings.ContainsRune(m[3], '$') {
		return nil, status.Errorf(codes.Unimplemented, "the BigQuery emulator does not support partition decorators")
	}
	t, err := w.s.cat.lookup(tableID{m[1], m[2], m[3]})
	if err != nil {
		return nil, storageError(codes.NotFound, storagepb.StorageError_TABLE_NOT_FOUND, path, "Requested entity was not found: table is not found.")
	}
	if t.isView() {
		return nil, status.Errorf(codes.InvalidArgument, "Cannot write to %s: it is a view. Entity: %s", t.id, path)
	}
	return t, nil
}

func (w *writeService) CreateWriteStream(_ context.Context, req *storagepb.CreateWriteStreamRequest) (*storagepb.WriteStream, error) {
	t, err := w.writable(req.GetParent())
	if err != nil {
		return nil, err
	}
	kind := req.GetWriteStream().GetType()
	switch kind {
	case storagepb.WriteStream_PENDING, storagepb.WriteStream_COMMITTED:
	case storagepb.WriteStream_BUFFERED:
		return nil, status.Errorf(codes.Unimplemented, "the BigQuery emulator does not support BUFFERED streams")
	case storagepb.WriteStream_TYPE_UNSPECIFIED:
		return nil, status.Errorf(codes.InvalidArgument, "Stream type is not specified")
	}
	if !w.s.writes.count(t.id.project, w.s.now()) {
		return nil, status.Errorf(codes.ResourceExhausted, "Exceeds 'CreateWriteStream requests' quota, user_id: project %s (%d per hour)", t.id.project, streamsPerHour)
	}
	st := &writeStream{
		name: req.GetParent() + "/streams/" + rand.Text(), kind: kind, table: t, created: w.s.now(),
	}
	if kind == storagepb.WriteStream_COMMITTED {
		st.committed = st.created
	}
	w.s.writes.add(st)
	return w.describe(st, true), nil
}

func (ws *writeStreams) count(project string, now time.Time) bool {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.created == nil {
		ws.created = map[string]*window{}
	}
	if ws.created[project] == nil {
		ws.created[project] = &window{}
	}
	return ws.created[project].take(now, time.Hour, streamsPerHour)
}

func (ws *writeStreams) add(st *writeStream) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	ws.streams[st.name] = st
}

func (w *writeService) describe(st *writeStream, full bool) *storagepb.WriteStream {
	out := &storagepb.WriteStream{
		Name: st.name, Type: st.kind, WriteMode: storagepb.WriteStream_INSERT,
		CreateTime: timestamppb.New(st.created), Location: strings.ToLower(w.s.cat.locationOf(datasetID{st.table.id.project, st.table.id.dataset})),
	}
	if !st.committed.IsZero() {
		out.CommitTime = timestamppb.New(st.committed)
	}
	if full {
		out.TableSchema = &storagepb.TableSchema{Fields: storageSchema(w.s.writableFields(st.table))}
	}
	return out
}

// fieldsOf reads a table's schema under the catalogue's lock.
func (s *Server) fieldsOf(t *table) []field {
	s.cat.mu.RLock()
	defer s.cat.mu.RUnlock()
	return t.fields
}

// stream finds a stream that still exists: its table is the one it was made
// for, and a PENDING one is committed within a day.
func (w *writeService) stream(name string) (*writeStream, error) {
	m := streamPath.FindStringSubmatch(name)
	if m == nil {
		return nil, status.Errorf(codes.InvalidArgument, "Invalid stream name: %q", name)
	}
	t, err := w.writable(m[1])
	if err != nil {
		return nil, err
	}
	if m[2] == defaultStream {
		now := w.s.now()
		return &writeStream{name: m[1] + "/streams/" + defaultStream, kind: storagepb.WriteStream_COMMITTED, table: t, created: now, committed: now}, nil
	}
	w.s.writes.mu.Lock()
	st := w.s.writes.streams[name]
	w.s.writes.mu.Unlock()
	if st == nil || st.table != t || st.expired(w.s.now()) {
		return nil, storageError(codes.NotFound, storagepb.StorageError_STREAM_NOT_FOUND, name, "Requested entity was not found: stream is not found.")
	}
	return st, nil
}

func (st *writeStream) expired(now time.Time) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.committed.IsZero() && now.Sub(st.created) > pendingTTL
}

func (st *writeStream) isDefault() bool { return strings.HasSuffix(st.name, "/"+defaultStream) }

func (w *writeService) GetWriteStream(_ context.Context, req *storagepb.GetWriteStreamRequest) (*storagepb.WriteStream, error) {
	st, err := w.stream(req.GetName())
	if err != nil {
		return nil, err
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	return w.describe(st, req.GetView() == storagepb.WriteStreamView_FULL), nil
}

func (w *writeService) FinalizeWriteStream(_ context.Context, req *storagepb.FinalizeWriteStreamRequest) (*storagepb.FinalizeWriteStreamResponse, error) {
	st, err := w.stream(req.GetName())
	if err != nil {
		return nil, err
	}
	if st.isDefault() {
		return nil, storageError(codes.InvalidArgument, storagepb.StorageError_INVALID_STREAM_TYPE, st.name, "The default stream cannot be finalized.")
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	st.finalized = true
	return &storagepb.FinalizeWriteStreamResponse{RowCount: st.next}, nil
}

func (w *writeService) FlushRows(context.Context, *storagepb.FlushRowsRequest) (*storagepb.FlushRowsResponse, error) {
	return nil, status.Errorf(codes.Unimplemented, "the BigQuery emulator does not support FlushRows: it has no BUFFERED streams")
}

// BatchCommitWriteStreams makes the rows of all streams visible in one
// transaction, or answers stream_errors and commits none.
func (w *writeService) BatchCommitWriteStreams(ctx context.Context, req *storagepb.BatchCommitWriteStreamsRequest) (*storagepb.BatchCommitWriteStreamsResponse, error) {
	t, err := w.writable(req.GetParent())
	if err != nil {
		return nil, err
	}
	if len(req.GetWriteStreams()) == 0 {
		return nil, status.Errorf(codes.InvalidArgument, "No write streams to commit")
	}
	t.rows.Lock()
	defer t.rows.Unlock()
	streams, unlock, problems := w.committable(t, req.GetWriteStreams())
	defer unlock()
	if len(problems) > 0 {
		return &storagepb.BatchCommitWriteStreamsResponse{StreamErrors: problems}, nil
	}
	if err := w.s.settleLocked(ctx, t); err != nil {
		return nil, err
	}
	var batches []*rowBatch
	for _, st := range streams {
		batches = append(batches, st.batches...)
	}
	if err := w.s.store.appendBatches(context.WithoutCancel(ctx), t.physical, w.s.fieldsOf(t), batches); err != nil {
		return nil, fmt.Errorf("committing %s: %w", t.id, err)
	}
	for _, b := range batches {
		w.s.noteAppend(t, int64(b.rows))
	}
	now := w.s.now()
	t.streamedAt = now
	for _, st := range streams {
		st.committed, st.batches = now, nil
	}
	w.s.touch(t)
	return &storagepb.BatchCommitWriteStreamsResponse{CommitTime: timestamppb.New(now)}, nil
}

// committable locks the streams that are to be committed, or names what
// forbids it.
func (w *writeService) committable(t *table, names []string) (streams []*writeStream, unlock func(), problems []*storagepb.StorageError) {
	unlock = func() {
		for _, st := range streams {
			st.mu.Unlock()
		}
	}
	seen := map[string]bool{}
	for _, name := range names {
		problem := func(code storagepb.StorageError_StorageErrorCode, message string) {
			problems = append(problems, &storagepb.StorageError{Code: code, Entity: name, ErrorMessage: message})
		}
		if seen[name] {
			problem(storagepb.StorageError_INVALID_STREAM_STATE, "Stream is named twice")
			continue
		}
		st, err := w.stream(name)
		switch {
		case err != nil || st.table != t:
			problem(storagepb.StorageError_STREAM_NOT_FOUND, "Stream is not found")
			continue
		case st.kind != storagepb.WriteStream_PENDING:
			problem(storagepb.StorageError_INVALID_STREAM_TYPE, "Stream must be created in pending mode, actual: "+st.kind.String())
			continue
		}
		seen[name] = true
		st.mu.Lock()
		streams = append(streams, st)
		switch {
		case !st.committed.IsZero():
			problem(storagepb.StorageError_STREAM_ALREADY_COMMITTED, "Stream has been committed")
		case !st.finalized:
			problem(storagepb.StorageError_INVALID_STREAM_STATE, "Stream is not finalized")
		}
	}
	return streams, unlock, problems
}

// appendConnection is the state of one AppendRows call.
type appendConnection struct {
	w      *writeService
	stream *writeStream
	schema *storagepb.ProtoSchema
	plan   *messagePlan
	base   []field // of the table, that the plan fits
	// changes is true where the writer's schema has pseudocolumns of changes,
	// which the plan has behind those of the table.
	changes bool
	mode    changeMode
}

func (w *writeService) AppendRows(call storagepb.BigQueryWrite_AppendRowsServer) error {
	c := &appendConnection{w: w}
	for {
		req, err := call.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return rpcError(err)
		}
		if err := w.s.obs.around("AppendRows", Before, req); err != nil {
			return rpcError(err)
		}
		resp, err := c.answer(call.Context(), req)
		if err != nil {
			return rpcError(err)
		}
		if err := w.s.obs.around("AppendRows", After, req); err != nil {
			return rpcError(err)
		}
		if err := call.Send(resp); err != nil {
			return rpcError(err)
		}
	}
}

// answer appends the rows of a request. An error ends the call; what concerns
// only the request is answered in the response, and the call goes on.
func (c *appendConnection) answer(ctx context.Context, req *storagepb.AppendRowsRequest) (*storagepb.AppendRowsResponse, error) {
	if size := proto.Size(req); size > maxAppendBytes {
		return nil, status.Errorf(codes.InvalidArgument, "AppendRows request too large: %d limit %d", size, maxAppendBytes)
	}
	if err := c.bind(req); err != nil {
		return nil, err
	}
	resp, err := c.append(ctx, req)
	if err == nil {
		resp.WriteStream = c.stream.name
		return resp, nil
	}
	var rows *badRowsError
	if errors.As(err, &rows) {
		st := status.Newf(codes.InvalidArgument, "Errors found while processing rows. Please refer to the row_errors field for details. The list may not be complete because of the size limitations. Entity: %s", c.stream.name)
		return &storagepb.AppendRowsResponse{
			Response:  &storagepb.AppendRowsResponse_Error{Error: st.Proto()},
			RowErrors: rows.list, WriteStream: c.stream.name,
		}, nil
	}
	st, ok := status.FromError(err)
	if !ok {
		return nil, err
	}
	return &storagepb.AppendRowsResponse{
		Response: &storagepb.AppendRowsResponse_Error{Error: st.Proto()}, WriteStream: c.stream.name,
	}, nil
}

// bind takes the stream and the writer's schema of a request, which only the
// first must give.
func (c *appendConnection) bind(req *storagepb.AppendRowsRequest) error {
	if req.GetArrowRows() != nil {
		return status.Errorf(codes.Unimplemented, "the BigQuery emulator does not support appending Arrow rows")
	}
	if len(req.GetMissingValueInterpretations()) > 0 || req.GetDefaultMissingValueInterpretation() == storagepb.AppendRowsRequest_DEFAULT_VALUE {
		// Without column defaults, which table creation refuses, both
		// interpretations of a missing value are NULL.
		if err := c.checkInterpretations(req); err != nil {
			return err
		}
	}
	name := req.GetWriteStream()
	switch {
	case name == "" && c.stream == nil:
		return status.Errorf(codes.InvalidArgument, "The first request of a connection must name its write stream")
	case name != "" && (c.stream == nil || !sameStream(name, c.stream.name)):
		st, err := c.w.stream(name)
		if err != nil {
			return err
		}
		if c.stream != nil && (!st.isDefault() || !c.stream.isDefault()) {
			return status.Errorf(codes.InvalidArgument, "A connection to an explicit stream cannot change it. Entity: %s", name)
		}
		c.stream, c.plan, c.schema = st, nil, nil
	}
	if s := req.GetProtoRows().GetWriterSchema(); s != nil {
		c.schema, c.plan = s, nil
	}
	if c.schema == nil {
		return status.Errorf(codes.InvalidArgument, "Invalid proto schema: the first request of a connection must give the writer's schema. Entity: %s", c.stream.name)
	}
	return nil
}

func (c *appendConnection) checkInterpretations(req *storagepb.AppendRowsRequest) error {
	for column, mvi := range req.GetMissingValueInterpretations() {
		if mvi != storagepb.AppendRowsRequest_NULL_VALUE && mvi != storagepb.AppendRowsRequest_DEFAULT_VALUE {
			return status.Errorf(codes.InvalidArgument, "Missing value interpretation of %s is unspecified", column)
		}
	}
	return nil
}

// sameStream compares names; the default stream has two forms.
func sameStream(a, b string) bool {
	return a == b || strings.Replace(a, "/streams/"+defaultStream, "/"+defaultStream, 1) == strings.Replace(b, "/streams/"+defaultStream, "/"+defaultStream, 1)
}

// badRowsError refuses a request whose rows are not all good.
type badRowsError struct{ list []*storagepb.RowError }

func (e *badRowsError) Error() string { return fmt.Sprintf("%d rows are refused", len(e.list)) }

func (c *appendConnection) append(ctx context.Context, req *storagepb.AppendRowsRequest) (*storagepb.AppendRowsResponse, error) {
	st := c.stream
	// A dropped table takes its streams with it.
	if _, err := c.w.stream(st.name); err != nil {
		return nil, err
	}
	updated, err := c.compile()
	if err != nil {
		return nil, err
	}
	rows := req.GetProtoRows().GetRows().GetSerializedRows()
	st.mu.Lock()
	defer st.mu.Unlock()
	if err := st.accepts(req.GetOffset(), len(rows)); err != nil {
		return nil, err
	}
	batch, err := c.decode(rows)
	if err != nil {
		return nil, err
	}
	resp := &storagepb.AppendRowsResponse{UpdatedSchema: updated}
	result := &storagepb.AppendRowsResponse_AppendResult{}
	if !st.isDefault() {
		result.Offset = wrapperspb.Int64(st.next)
	}
	mode, err := c.classify(batch)
	if err != nil {
		return nil, err
	}
	if mode == modeUpsert {
		err = c.keepChanges(ctx, batch)
	} else {
		batch.fields, batch.vectors = batch.fields[:len(c.base)], batch.vectors[:len(c.base)]
		err = c.keep(ctx, batch)
	}
	if err != nil {
		return nil, err
	}
	c.mode = mode
	st.next += int64(len(rows))
	resp.Response = &storagepb.AppendRowsResponse_AppendResult_{AppendResult: result}
	return resp, nil
}

// compile fits the writer's schema to the table as it is now, and answers the
// table's schema where it changed since the last append.
func (c *appendConnection) compile() (*storagepb.TableSchema, error) {
	fields := c.w.s.writableFields(c.stream.table)
	if c.plan != nil && len(fields) == len(c.base) && (len(fields) == 0 || &fields[0] == &c.base[0]) {
		return nil, nil //nolint:nilnil // no new schema is no error
	}
	changed := c.plan != nil
	decoded, changes := fields, slices.ContainsFunc(c.schema.GetProtoDescriptor().GetField(), func(fd *descriptorpb.FieldDescriptorProto) bool {
		return slices.ContainsFunc(changeColumns(), func(f field) bool { return strings.EqualFold(f.name, protoColumn(fd)) })
	})
	if changes {
		decoded = slices.Concat(fields, changeColumns())
	}
	plan, err := compilePlan(c.schema.GetProtoDescriptor(), decoded)
	if err != nil {
		var extra *extraFieldError
		if errors.As(err, &extra) {
			return nil, storageError(codes.InvalidArgument, storagepb.StorageError_SCHEMA_MISMATCH_EXTRA_FIELDS, c.stream.name, "%s", extra.Error())
		}
		return nil, status.Errorf(codes.InvalidArgument, "Input schema does not fit the table's: %v Entity: %s", err, c.stream.name)
	}
	c.plan, c.base, c.changes = plan, fields, changes
	if !changed {
		return nil, nil //nolint:nilnil // no new schema is no error
	}
	return &storagepb.TableSchema{Fields: storageSchema(fields)}, nil
}

func (st *writeStream) accepts(offset *wrapperspb.Int64Value, rows int) error {
	switch {
	case st.finalized:
		return storageError(codes.InvalidArgument, storagepb.StorageError_STREAM_FINALIZED, st.name, "Stream has been finalized and cannot be appended.")
	case rows == 0:
		return status.Errorf(codes.InvalidArgument, "Rows must be specified in the request. Entity: %s", st.name)
	case offset == nil:
		return nil
	case st.isDefault():
		return status.Errorf(codes.InvalidArgument, "Offset must not be set on the default stream. Entity: %s", st.name)
	case offset.GetValue() < 0:
		return status.Errorf(codes.InvalidArgument, "Offset must not be negative. Entity: %s", st.name)
	case offset.GetValue() < st.next:
		return storageError(codes.AlreadyExists, storagepb.StorageError_OFFSET_ALREADY_EXISTS, st.name,
			"The offset is within stream, expected offset %d, received %d", st.next, offset.GetValue())
	case offset.GetValue() > st.next:
		return storageError(codes.OutOfRange, storagepb.StorageError_OFFSET_OUT_OF_RANGE, st.name,
			"The offset is beyond stream, expected offset %d, received %d", st.next, offset.GetValue())
	}
	return nil
}

func (c *appendConnection) decode(rows [][]byte) (*rowBatch, error) {
	part, now := c.stream.table.part, c.w.s.now()
	batch := newRowBatch(c.plan.fields, len(rows))
	var bad badRowsError
	for i, row := range rows {
		err := c.plan.decodeRow(batch, i, row)
		if err == nil {
			err = part.checkStreamed(batch, i, now)
		}
		if err != nil && len(bad.list) < maxRowErrors {
			bad.list = append(bad.list, &storagepb.RowError{
				Index: int64(i), Code: storagepb.RowError_FIELDS_ERROR, Message: err.Error(),
			})
		}
	}
	if len(bad.list) > 0 {
		return nil, &bad
	}
	return batch, nil
}

// keep holds rows of a PENDING stream back and writes all others at once.
func (c *appendConnection) keep(ctx context.Context, batch *rowBatch) error {
	st := c.stream
	if st.kind == storagepb.WriteStream_PENDING {
		st.batches = append(st.batches, batch)
		return nil
	}
	st.table.rows.Lock()
	defer st.table.rows.Unlock()
	if err := c.w.s.settleLocked(ctx, st.table); err != nil {
		return err
	}
	err := c.w.s.store.appendBatches(context.WithoutCancel(ctx), st.table.physical, c.w.s.fieldsOf(st.table), []*rowBatch{batch})
	if err != nil {
		return fmt.Errorf("appending to %s: %w", st.table.id, err)
	}
	c.w.s.noteAppend(st.table, int64(batch.rows))
	st.table.streamedAt = c.w.s.now()
	c.w.s.touch(st.table)
	return nil
}
