package postgres

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// account is the user that the server runs as; nil means ourselves.
type account struct {
	name     string
	uid, gid uint32
}

// serverAccount picks the user to run as: Postgres refuses to run as root.
func serverAccount() (*account, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		found, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.ParseUint(found.Uid, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("reading the user id of %s: %w", name, err)
		}
		gid, err := strconv.ParseUint(found.Gid, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("reading the group id of %s: %w", name, err)
		}
		return &account{name: name, uid: uint32(uid), gid: uint32(gid)}, nil
	}
	return nil, errors.New("finding a user for Postgres: it refuses to run as root, and this machine has neither a user postgres nor nobody")
}

// attributes makes a command run as the account.
func (a *account) attributes() *syscall.SysProcAttr {
	if a == nil {
		return &syscall.SysProcAttr{}
	}
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: a.uid, Gid: a.gid}}
}

// own gives a file or folder to the account.
func (a *account) own(path string) error {
	if a == nil {
		return nil
	}
	if err := os.Chown(path, int(a.uid), int(a.gid)); err != nil {
		return fmt.Errorf("giving the server's folder to user %s: %w", a.name, err)
	}
	return nil
}

// reach makes sure that the account can walk down to dir. Folders below the
// system's temporary one, such as a test's, are opened for passing through; for any
// other the caller is told.
func (a *account) reach(dir string) error {
	if a == nil {
		return nil
	}
	for parent := filepath.Dir(dir); ; parent = filepath.Dir(parent) {
		info, err := os.Stat(parent)
		if err != nil {
			return fmt.Errorf("checking the way to the server's folder: %w", err)
		}
		if !a.enters(info) {
			if !strings.HasPrefix(parent, filepath.Clean(os.TempDir())+"/") {
				return fmt.Errorf("checking the way to the server's folder: user %s, whom Postgres runs as, may not enter %s: "+
					"choose another folder, or allow it with chmod o+x", a.name, parent)
			}
			if err := os.Chmod(parent, info.Mode().Perm()|0o011); err != nil {
				return fmt.Errorf("opening the way to the server's folder: %w", err)
			}
		}
		if parent == filepath.Dir(parent) {
			return nil
		}
	}
}

func (a *account) enters(info os.FileInfo) bool {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		if stat.Uid == a.uid {
			return info.Mode()&0o100 != 0
		}
		if stat.Gid == a.gid {
			return info.Mode()&0o010 != 0
		}
	}
	return info.Mode()&0o001 != 0
}
