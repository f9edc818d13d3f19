package cloudsql

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	sqladmin "google.golang.org/api/sqladmin/v1beta4"
)

// Error implements error.
func (f *APIError) Error() string { return fmt.Sprintf("%d %s: %s", f.Status, f.Reason, f.Message) }

// handler serves the two methods of the API under their only names.
func (i *Instance) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /sql/v1beta4/projects/{project}/instances/{instance}/connectSettings", i.method(ConnectSettings, i.connectSettings))
	sign := i.method(GenerateEphemeralCert, i.generateEphemeralCert)
	mux.HandleFunc("POST /sql/v1beta4/projects/{project}/instances/{call}", func(w http.ResponseWriter, r *http.Request) {
		name, ok := strings.CutSuffix(r.PathValue("call"), ":generateEphemeralCert")
		if !ok {
			refuse(w, unknownMethod(r))
			return
		}
		r.SetPathValue("instance", name)
		sign.ServeHTTP(w, r)
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { refuse(w, unknownMethod(r)) })
	return mux
}

func unknownMethod(r *http.Request) *APIError {
	return &APIError{http.StatusNotFound, "notFound", "this fake has no method " + r.Method + " " + r.URL.Path}
}

// method is one of the API: it counts the request, then checks the injected
// failures, who calls, whether they may, and that the instance exists.
func (i *Instance) method(endpoint Endpoint, answer func(*http.Request, *Account) (any, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if failure := i.count(endpoint); failure != nil {
			refuse(w, failure)
			return
		}
		account, failure := i.authorize(r)
		if failure != nil {
			refuse(w, failure)
			return
		}
		body, err := answer(r, account)
		if err != nil {
			refuse(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(body) // who hung up needs no answer
	})
}

func (i *Instance) count(endpoint Endpoint) *APIError {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.requests[endpoint]++
	queue := i.failures[endpoint]
	if len(queue) == 0 {
		return nil
	}
	i.failures[endpoint] = queue[1:]
	return &queue[0]
}

func (i *Instance) authorize(r *http.Request) (*Account, *APIError) {
	text, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	account, ok := i.bearer(text, adminScope)
	if !ok {
		return nil, &APIError{http.StatusUnauthorized, "authError", "Request had invalid authentication credentials."}
	}
	project, name := r.PathValue("project"), r.PathValue("instance")
	if project != i.options.Project {
		// Google does not tell strangers what exists.
		return nil, &APIError{http.StatusForbidden, "notAuthorized", "The client is not authorized to make this request."}
	}
	if !account.may(Connect) {
		return nil, &APIError{http.StatusForbidden, "forbidden", "boss::NOT_AUTHORIZED: Not authorized to access resource. Possibly missing permission " + string(Connect) + " on resource instances/" + name + "."}
	}
	if name != i.options.Name {
		return nil, &APIError{http.StatusNotFound, "instanceDoesNotExist", "The Cloud SQL instance does not exist."}
	}
	return account, nil
}

// connectSettings says how to reach the instance and whom to trust there.
func (i *Instance) connectSettings(*http.Request, *Account) (any, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	settings := &sqladmin.ConnectSettings{
		Kind: "sql#connectSettings", BackendType: "SECOND_GEN", DatabaseVersion: "POSTGRES_18", Region: i.options.Region,
		ServerCaMode: "GOOGLE_MANAGED_INTERNAL_CA", ServerCaCert: &sqladmin.SslCert{Kind: "sql#sslCert", Instance: i.options.Name},
	}
	for _, ca := range i.serverCAs {
		settings.ServerCaCert.Cert += encode(ca.certificate)
	}
	for _, address := range []sqladmin.IpMapping{{Type: "PRIMARY", IpAddress: i.options.Public}, {Type: "PRIVATE", IpAddress: i.options.Private}} {
		if address.IpAddress != "" {
			settings.IpAddresses = append(settings.IpAddresses, &address)
		}
	}
	if i.options.DNSName != "" {
		settings.PscEnabled = true
		settings.DnsNames = []*sqladmin.DnsNameMapping{{Name: i.options.DNSName + ".", ConnectionType: "PRIVATE_SERVICE_CONNECT", DnsScope: "INSTANCE"}}
	}
	return settings, nil
}

// generateEphemeralCert signs a certificate for the key and the account of the
// login token, which must be the caller's.
func (i *Instance) generateEphemeralCert(r *http.Request, caller *Account) (any, error) {
	var request sqladmin.GenerateEphemeralCertRequest
	decoder := json.NewDecoder(r.Body)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&request); err != nil {
		return nil, &APIError{http.StatusBadRequest, "parseError", err.Error()}
	}
	key, err := publicKey(request.PublicKey)
	if err != nil {
		return nil, &APIError{http.StatusBadRequest, "invalidRequest", err.Error()}
	}
	if request.AccessToken == "" {
		return nil, &APIError{http.StatusBadRequest, "invalidRequest", "this fake has IAM logins only: access_token is missing"}
	}
	if request.ReadTime+request.ValidDuration != "" {
		return nil, &APIError{http.StatusBadRequest, "invalidRequest", "this fake has neither readTime nor validDuration"}
	}
	if login, ok := i.bearer(request.AccessToken, loginScope); !ok || login != caller {
		return nil, &APIError{http.StatusForbidden, "forbidden", "The access token is not a login token of the caller."}
	}
	ca, life := i.signer()
	now := i.now()
	certificate, err := ca.client(caller.user, key, now.Add(-skew), now.Add(life))
	if err != nil {
		return nil, err
	}
	return &sqladmin.GenerateEphemeralCertResponse{EphemeralCert: &sqladmin.SslCert{Kind: "sql#sslCert", Instance: i.options.Name, Cert: encode(certificate)}}, nil
}

// signer is the CA of client certificates now, and how long they are good for.
func (i *Instance) signer() (*authority, time.Duration) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.clientCA, i.lifetime
}

// refuse writes an error as Google's JSON APIs do.
func refuse(w http.ResponseWriter, err error) {
	failure := &APIError{Status: http.StatusInternalServerError, Reason: "internalError", Message: err.Error()}
	_ = errors.As(err, &failure)
	type item struct {
		Message string `json:"message"`
		Domain  string `json:"domain"`
		Reason  string `json:"reason"`
	}
	var body struct {
		Error struct {
			Code    int    `json:"code"`
			Message string `json:"message"`
			Errors  []item `json:"errors,omitempty"`
		} `json:"error"`
	}
	body.Error.Code, body.Error.Message = failure.Status, failure.Message
	if failure.Reason != "" {
		body.Error.Errors = []item{{failure.Message, "global", failure.Reason}}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(failure.Status)
	_ = json.NewEncoder(w).Encode(body) // who hung up needs no answer
}
