package bigquery

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
)

// defaultLocation is where everything of the emulator is.
const defaultLocation = "US"

// maxRESTBody is the largest request of the REST API, insertAll's.
const maxRESTBody = 10 << 20

// method is a REST method: it reads the request and answers a body to encode,
// nil for an empty answer.
type method func(*http.Request) (any, error)

// routes are the methods of https://cloud.google.com/bigquery/docs/reference/rest
// that the emulator has; any other is refused by name.
func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	const p = "/bigquery/v2/projects/{project}"
	handle := func(pattern, name string, m method) { mux.HandleFunc(pattern, s.serveMethod(name, m)) }
	handle("POST "+p+"/datasets", "datasets.insert", s.insertDataset)
	handle("GET "+p+"/datasets", "datasets.list", s.listDatasets)
	handle("GET "+p+"/datasets/{dataset}", "datasets.get", s.getDataset)
	handle("PATCH "+p+"/datasets/{dataset}", "datasets.patch", s.patchDataset)
	handle("DELETE "+p+"/datasets/{dataset}", "datasets.delete", s.deleteDataset)
	handle("POST "+p+"/datasets/{dataset}/tables", "tables.insert", s.insertTable)
	handle("GET "+p+"/datasets/{dataset}/tables", "tables.list", s.listTables)
	handle("GET "+p+"/datasets/{dataset}/tables/{table}", "tables.get", s.getTable)
	handle("PATCH "+p+"/datasets/{dataset}/tables/{table}", "tables.patch", s.patchTable)
	handle("PUT "+p+"/datasets/{dataset}/tables/{table}", "tables.update", s.updateTable)
	handle("DELETE "+p+"/datasets/{dataset}/tables/{table}", "tables.delete", s.deleteTable)
	handle("GET "+p+"/datasets/{dataset}/tables/{table}/data", "tabledata.list", s.listTableData)
	handle("POST "+p+"/datasets/{dataset}/tables/{table}/insertAll", "tabledata.insertAll", s.insertAll)
	handle("POST "+p+"/jobs", "jobs.insert", s.insertJob)
	handle("GET "+p+"/jobs/{job}", "jobs.get", s.getJob)
	handle("POST "+p+"/jobs/{job}/cancel", "jobs.cancel", s.cancelJob)
	handle("POST "+p+"/queries", "jobs.query", s.queryJob)
	handle("GET "+p+"/queries/{job}", "jobs.getQueryResults", s.queryResults)
	mux.HandleFunc("/", s.serveMethod("unknown", func(r *http.Request) (any, error) {
		return nil, errUnsupported("%s %s", r.Method, r.URL.Path)
	}))
	return mux
}

func (s *Server) serveMethod(name string, m method) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := s.callMethod(name, m, r)
		if err != nil {
			if e := asAPIError(err); e.code == http.StatusInternalServerError {
				s.log.ErrorContext(r.Context(), "answering", "method", name, "error", err)
			}
			writeAPIError(w, err)
			return
		}
		if body == nil {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		w.Header().Set("Content-Type", "application/json; charset=UTF-8")
		if err := json.NewEncoder(w).Encode(body); err != nil {
			s.log.DebugContext(r.Context(), "writing an answer", "method", name, "error", err)
		}
	}
}

func (s *Server) callMethod(name string, m method, r *http.Request) (any, error) {
	if err := s.obs.around(name, Before, r); err != nil {
		return nil, err
	}
	if err := s.dropExpired(r.Context()); err != nil {
		return nil, err
	}
	body, err := m(r)
	if err != nil {
		return nil, err
	}
	return body, s.obs.around(name, After, r)
}

// readBody decodes a JSON body and refuses names the API does not have.
func readBody(r *http.Request, into any) ([]byte, error) {
	raw, err := io.ReadAll(io.LimitReader(r.Body, maxRESTBody+1))
	if err != nil {
		return nil, fmt.Errorf("reading request: %w", err)
	}
	if len(raw) > maxRESTBody {
		return nil, &apiError{http.StatusRequestEntityTooLarge, "invalid", "Request payload size exceeds the limit: 10485760 bytes."}
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil && !errors.Is(err, io.EOF) {
		return nil, errInvalid("Invalid JSON payload received. %v", err)
	}
	return raw, nil
}

// present tells which members a JSON body has; null counts.
func present(raw []byte) (map[string]json.RawMessage, error) {
	members := map[string]json.RawMessage{}
	if err := json.Unmarshal(raw, &members); err != nil {
		return nil, errInvalid("Invalid JSON payload received. %v", err)
	}
	return members, nil
}

// queryInt reads a whole number of the query string.
func queryInt(r *http.Request, name string, fallback int64) (int64, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return fallback, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return 0, errInvalid("Invalid value for %s: %q", name, text)
	}
	return n, nil
}

func pathTable(r *http.Request) tableID {
	return tableID{r.PathValue("project"), r.PathValue("dataset"), r.PathValue("table")}
}

// page cuts a list: the start is the token, the token the next start.
func page(r *http.Request, total int) (from, to int, next string, err error) {
	limit, err := queryInt(r, "maxResults", int64(total))
	if err != nil {
		return 0, 0, "", err
	}
	from = 0
	if token := r.URL.Query().Get("pageToken"); token != "" {
		from, err = strconv.Atoi(token)
		if err != nil || from < 0 || from > total {
			return 0, 0, "", errInvalid("Invalid page token: %q", token)
		}
	}
	to = min(total, from+int(min(limit, int64(total))))
	if to < total {
		next = strconv.Itoa(to)
	}
	return from, to, next, nil
}

func checkIfMatch(r *http.Request, etag string) error {
	if want := r.Header.Get("If-Match"); want != "" && want != "*" && want != etag {
		return &apiError{http.StatusPreconditionFailed, "conditionNotMet", "Precondition Failed: the etag does not match"}
	}
	return nil
}
