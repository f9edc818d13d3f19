package cloudsql

import (
	"crypto/rand"
	"slices"
	"time"

	"cloud.google.com/go/cloudsqlconn"
	"golang.org/x/oauth2"
)

// Permission is what an account may do with the instance.
type Permission string

// The permissions of roles/cloudsql.client and roles/cloudsql.instanceUser.
const (
	Connect Permission = "cloudsql.instances.connect"
	Login   Permission = "cloudsql.instances.login"
)

// The scopes of the two tokens of an account.
const (
	adminScope = "https://www.googleapis.com/auth/sqlservice.admin"
	loginScope = "https://www.googleapis.com/auth/sqlservice.login"
)

// Account is a service account of the project. It may connect and log in until
// told otherwise.
type Account struct {
	instance *Instance
	user     string

	// Guarded by the instance's mutex.
	life    time.Duration
	revoked map[Permission]bool
	issued  map[string]int
}

// token is what the issuer knows about one.
type token struct {
	account *Account
	scope   string
	expiry  time.Time
}

// Account returns the account with the database user's name: its email without
// .gserviceaccount.com. That Postgres has a role of that name is up to the caller.
func (i *Instance) Account(user string) *Account {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.accounts[user] == nil {
		i.accounts[user] = &Account{instance: i, user: user, life: time.Hour, revoked: map[Permission]bool{}, issued: map[string]int{}}
	}
	return i.accounts[user]
}

// Connector returns the options that have a connector call this instance's Admin
// API and network as the account.
func (a *Account) Connector() []cloudsqlconn.Option {
	return []cloudsqlconn.Option{
		cloudsqlconn.WithAdminAPIEndpoint(a.instance.AdminAPI()),
		cloudsqlconn.WithIAMAuthNTokenSources(a.AdminTokens(), a.LoginTokens()),
		cloudsqlconn.WithDialFunc(a.instance.Dial),
	}
}

// AdminTokens issues tokens that call the Admin API, a new one each time.
func (a *Account) AdminTokens() oauth2.TokenSource { return source{a, adminScope} }

// LoginTokens issues tokens that log in to the database and do nothing else, a new
// one each time.
func (a *Account) LoginTokens() oauth2.TokenSource { return source{a, loginScope} }

// SetTokenLife says how long tokens are good for from now on, at first an hour.
func (a *Account) SetTokenLife(d time.Duration) {
	a.instance.mu.Lock()
	defer a.instance.mu.Unlock()
	a.life = d
}

// Revoke takes a permission from the account.
func (a *Account) Revoke(p Permission) {
	a.instance.mu.Lock()
	defer a.instance.mu.Unlock()
	a.revoked[p] = true
}

// Logins is how many login tokens were asked for.
func (a *Account) Logins() int {
	a.instance.mu.Lock()
	defer a.instance.mu.Unlock()
	return a.issued[loginScope]
}

// Secrets are the tokens issued to the account so far.
func (a *Account) Secrets() []string {
	a.instance.mu.Lock()
	defer a.instance.mu.Unlock()
	var secrets []string
	for text, token := range a.instance.tokens {
		if token.account == a {
			secrets = append(secrets, text)
		}
	}
	slices.Sort(secrets)
	return secrets
}

// may says whether the account has a permission.
func (a *Account) may(p Permission) bool {
	a.instance.mu.Lock()
	defer a.instance.mu.Unlock()
	return !a.revoked[p]
}

// source issues the tokens of one scope.
type source struct {
	account *Account
	scope   string
}

// Token implements oauth2.TokenSource: a new token each time.
func (s source) Token() (*oauth2.Token, error) {
	i := s.account.instance
	i.mu.Lock()
	defer i.mu.Unlock()
	expiry := time.Now().Add(s.account.life)
	text := "ya29." + rand.Text()
	i.tokens[text] = token{s.account, s.scope, expiry}
	s.account.issued[s.scope]++
	return &oauth2.Token{AccessToken: text, TokenType: "Bearer", Expiry: expiry}, nil
}

// bearer returns the account of a token that is good for a scope.
func (i *Instance) bearer(text, scope string) (*Account, bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	t, known := i.tokens[text]
	return t.account, known && t.scope == scope && time.Now().Before(t.expiry)
}
