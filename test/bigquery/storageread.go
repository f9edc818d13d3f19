package bigquery

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"sync"
	"time"

	"cloud.google.com/go/bigquery/storage/apiv1/storagepb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
)

const (
	sessionTTL     = 6 * time.Hour
	batchRows      = 4096
	batchBytes     = 8 << 20
	onlyReadStream = "/streams/0"
)

// readSessions are the sessions of the Storage Read API.
type readSessions struct {
	mu       sync.Mutex
	made     int
	sessions map[string]*readSession
}

// readSession is a snapshot of a table's columns.
type readSession struct {
	name    string
	source  string // quoted DuckDB name of the snapshot
	owned   bool   // the snapshot is the session's own
	columns string // DuckDB expressions
	encoder *arrowEncoder
	rows    int64
	expires time.Time
}

type readService struct {
	storagepb.UnimplementedBigQueryReadServer
	s *Server
}

func (r *readService) CreateReadSession(ctx context.Context, req *storagepb.CreateReadSessionRequest) (*storagepb.ReadSession, error) {
	want := req.GetReadSession()
	if err := supportedSession(want); err != nil {
		return nil, err
	}
	if err := r.s.dropExpired(ctx); err != nil {
		return nil, err
	}
	project, ok := strings.CutPrefix(req.GetParent(), "projects/")
	if !ok || strings.Contains(project, "/") {
		return nil, status.Errorf(codes.InvalidArgument, "Invalid parent: %q", req.GetParent())
	}
	t, err := r.readable(want.GetTable())
	if err != nil {
		return nil, err
	}
	if t.mergesAtRunTime() {
		return nil, status.Errorf(codes.FailedPrecondition, "request failed: the Storage Read API does not read %s, whose changes are merged at run time: its max_staleness is too low", t.id)
	}
	if err := r.s.settle(ctx, t); err != nil {
		return nil, err
	}
	fields, err := selectFields(r.s.fieldsOf(t), want.GetReadOptions().GetSelectedFields())
	if err != nil {
		return nil, err
	}
	rs, err := r.open(ctx, project, t, fields, want.GetReadOptions().GetArrowSerializationOptions().GetBufferCompression())
	if err != nil {
		return nil, err
	}
	out := &storagepb.ReadSession{
		Name: rs.name, Table: want.GetTable(), DataFormat: storagepb.DataFormat_ARROW, ReadOptions: want.GetReadOptions(),
		ExpireTime: timestamppb.New(rs.expires), EstimatedRowCount: rs.rows,
		Schema: &storagepb.ReadSession_ArrowSchema{ArrowSchema: &storagepb.ArrowSchema{SerializedSchema: rs.encoder.head}},
	}
	if rs.rows > 0 {
		out.Streams = []*storagepb.ReadStream{{Name: rs.name + onlyReadStream}}
	}
	return out, nil
}

func supportedSession(want *storagepb.ReadSession) error {
	unsupported := func(what string) error {
		return status.Errorf(codes.Unimplemented, "the BigQuery emulator does not support %s of the Storage Read API", what)
	}
	switch {
	case want.GetDataFormat() == storagepb.DataFormat_AVRO:
		return unsupported("the format AVRO")
	case want.GetDataFormat() != storagepb.DataFormat_ARROW:
		return status.Errorf(codes.InvalidArgument, "Data format must be specified")
	case want.GetReadOptions().GetRowRestriction() != "":
		return unsupported("row_restriction")
	case want.GetReadOptions() != nil && want.GetReadOptions().SamplePercentage != nil:
		return unsupported("sample_percentage")
	case want.GetTableModifiers().GetSnapshotTime() != nil:
		return unsupported("snapshot_time")
	case want.GetReadOptions().GetResponseCompressionCodec() != storagepb.ReadSession_TableReadOptions_RESPONSE_COMPRESSION_CODEC_UNSPECIFIED:
		return unsupported("response_compression_codec")
	}
	return nil
}

func (r *readService) readable(path string) (*table, error) {
	m := tablePath.FindStringSubmatch(path)
	if m == nil {
		return nil, status.Errorf(codes.InvalidArgument, "Invalid table path: %q", path)
	}
	id := tableID{m[1], m[2], m[3]}
	t, err := r.s.cat.lookup(id)
	if err != nil {
		return nil, status.Errorf(codes.NotFound, "Not found: Table %s", id.legacy())
	}
	if t.isView() {
		return nil, status.Errorf(codes.InvalidArgument, "request failed: tables of type VIEW are not supported: %s", id)
	}
	return t, nil
}

func selectFields(fields []field, names []string) ([]field, error) {
	if len(names) == 0 {
		return fields, nil
	}
	chosen := map[int]bool{}
	for _, name := range names {
		if strings.ContainsRune(name, '.') {
			return nil, status.Errorf(codes.Unimplemented, "the BigQuery emulator does not support selecting members of a STRUCT: %s", name)
		}
		i, ok := findField(fields, name)
		if !ok {
			return nil, status.Errorf(codes.InvalidArgument, "request failed: The following selected fields do not exist in the table schema: %s", name)
		}
		chosen[i] = true
	}
	var out []field // in the order of the table, whatever the order of the names
	for i, f := range fields {
		if chosen[i] {
			out = append(out, f)
		}
	}
	return out, nil
}

// open takes the snapshot. Results of queries never change and need no copy.
func (r *readService) open(ctx context.Context, project string, t *table, fields []field, c storagepb.ArrowSerializationOptions_CompressionCodec) (*readSession, error) {
	encoder, err := newArrowEncoder(fields, c)
	if err != nil {
		return nil, err
	}
	r.expire(ctx)
	rs := &readSession{
		name:   fmt.Sprintf("projects/%s/locations/%s/sessions/%s", project, strings.ToLower(r.s.cat.locationOf(datasetID{t.id.project, t.id.dataset})), rand.Text()),
		source: t.real(), encoder: encoder, expires: r.s.now().Add(sessionTTL),
	}
	rs.columns = readSQL(fields)
	if t.id.dataset != anonymousDataset {
		r.s.reads.mu.Lock()
		r.s.reads.made++
		rs.source = quoteIdent(realSchema) + "." + quoteIdent(fmt.Sprintf("snapshot#%d", r.s.reads.made))
		r.s.reads.mu.Unlock()
		rs.owned = true
		if err := r.s.store.exec(ctx, "CREATE TABLE "+rs.source+" AS SELECT * FROM "+t.real()); err != nil {
			return nil, err
		}
	}
	if err := r.s.store.scalar(ctx, "SELECT count(*) FROM "+rs.source, &rs.rows); err != nil {
		return nil, err
	}
	r.s.reads.mu.Lock()
	defer r.s.reads.mu.Unlock()
	r.s.reads.sessions[rs.name] = rs
	return rs, nil
}

// expire drops the snapshots of sessions that ended.
func (r *readService) expire(ctx context.Context) {
	r.s.reads.mu.Lock()
	defer r.s.reads.mu.Unlock()
	for name, rs := range r.s.reads.sessions {
		if !r.s.now().After(rs.expires) {
			continue
		}
		delete(r.s.reads.sessions, name)
		if !rs.owned {
			continue
		}
		if err := r.s.store.exec(ctx, "DROP TABLE "+rs.source); err != nil {
			r.s.log.ErrorContext(ctx, "dropping an expired read session", "error", err)
		}
	}
}

func (r *readService) SplitReadStream(context.Context, *storagepb.SplitReadStreamRequest) (*storagepb.SplitReadStreamResponse, error) {
	return nil, status.Errorf(codes.Unimplemented, "the BigQuery emulator does not support SplitReadStream")
}

func (r *readService) ReadRows(req *storagepb.ReadRowsRequest, call storagepb.BigQueryRead_ReadRowsServer) error {
	if err := r.s.obs.around("ReadRows", Before, req); err != nil {
		return rpcError(err)
	}
	name, ok := strings.CutSuffix(req.GetReadStream(), onlyReadStream)
	r.s.reads.mu.Lock()
	rs := r.s.reads.sessions[name]
	r.s.reads.mu.Unlock()
	switch {
	case !ok || rs == nil || r.s.now().After(rs.expires):
		return status.Errorf(codes.NotFound, "Read stream is not found or its session expired: %s", req.GetReadStream())
	case req.GetOffset() < 0 || req.GetOffset() > rs.rows:
		return status.Errorf(codes.FailedPrecondition, "there was an error operating on '%s': requested offset %d is past the end of the stream with %d rows", req.GetReadStream(), req.GetOffset(), rs.rows)
	}
	return rpcErrorOrNil(r.send(req, rs, call))
}

func rpcErrorOrNil(err error) error {
	if err == nil {
		return nil
	}
	return rpcError(err)
}

func (r *readService) send(req *storagepb.ReadRowsRequest, rs *readSession, call storagepb.BigQueryRead_ReadRowsServer) error {
	query := fmt.Sprintf("SELECT %s FROM %s OFFSET %d", rs.columns, rs.source, req.GetOffset())
	rows, err := r.s.store.db.QueryContext(call.Context(), query)
	if err != nil {
		return fmt.Errorf("reading %s: %w", rs.name, err)
	}
	defer rows.Close() //nolint:errcheck // rows.Err is checked
	builder := rs.encoder.builder()
	defer builder.Release()
	values, pointers := scanTargets(len(rs.encoder.fields))
	count, size := int64(0), 0
	flush := func() error {
		body, err := rs.encoder.batch(builder)
		if err != nil {
			return err
		}
		resp := &storagepb.ReadRowsResponse{
			RowCount: count, Stats: &storagepb.StreamStats{Progress: &storagepb.StreamStats_Progress{}},
			Rows: &storagepb.ReadRowsResponse_ArrowRecordBatch{ArrowRecordBatch: &storagepb.ArrowRecordBatch{SerializedRecordBatch: body}},
		}
		count, size = 0, 0
		if err := call.Send(resp); err != nil {
			return rpcError(err)
		}
		return r.s.obs.around("ReadRows", After, req)
	}
	for rows.Next() {
		if err := rows.Scan(pointers...); err != nil {
			return fmt.Errorf("reading %s: %w", rs.name, err)
		}
		for i, f := range rs.encoder.fields {
			n, err := appendArrow(builder.Field(i), f, values[i])
			if err != nil {
				return err
			}
			size += n
		}
		count++
		if count == batchRows || size >= batchBytes {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("reading %s: %w", rs.name, err)
	}
	if count > 0 {
		return flush()
	}
	return nil
}

func scanTargets(n int) (values, pointers []any) {
	values, pointers = make([]any, n), make([]any, n)
	for i := range values {
		pointers[i] = &values[i]
	}
	return values, pointers
}
