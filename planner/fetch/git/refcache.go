package git

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// seenRef is the record of what a ref of a remote repository pointed to.
type seenRef struct {
	Repo   string    `json:"repo"`
	Asked  string    `json:"asked"` // the request's ref
	Want   string    `json:"want"`
	Commit string    `json:"commit"`
	Ref    string    `json:"ref"`
	Full   string    `json:"full,omitempty"`
	At     time.Time `json:"at"`
}

func (c *Cloner) refFile(repo, ref string) string {
	sum := sha256.Sum256([]byte(repo + "\n" + ref))
	return c.path("refs", hex.EncodeToString(sum[:16])+".json")
}

// recall returns what a ref of a remote repository pointed to when it was last
// looked up, if that is at most maxAge ago. A record that cannot be read is
// none.
func (c *Cloner) recall(src source, ref string, maxAge time.Duration) (resolved, bool) {
	if _, remote := src.(*remoteSource); !remote || maxAge <= 0 {
		return resolved{}, false
	}
	b, err := os.ReadFile(c.refFile(src.name(), ref))
	var s seenRef
	if err != nil || json.Unmarshal(b, &s) != nil || s.Repo != src.name() || s.Asked != ref || !isCommitID(s.Commit) {
		return resolved{}, false
	}
	if age := c.cfg.Now().Sub(s.At); age < 0 || age > maxAge {
		return resolved{}, false
	}
	return resolved{want: s.Want, commit: s.Commit, ref: s.Ref, full: s.Full}, true
}

// remember records what a ref of a remote repository pointed to, once its
// checkout is in the cache.
func (c *Cloner) remember(src source, ref string, r resolved) error {
	if _, remote := src.(*remoteSource); !remote {
		return nil
	}
	b, err := json.Marshal(seenRef{Repo: src.name(), Asked: ref, Want: r.want, Commit: r.commit, Ref: r.ref, Full: r.full, At: c.cfg.Now().UTC()})
	if err != nil {
		return fmt.Errorf("encode ref: %w", err)
	}
	if err := os.MkdirAll(c.path("refs"), 0o700); err != nil {
		return fmt.Errorf("create cache: %w", err)
	}
	st, err := newStage(c.path("tmp"))
	if err != nil {
		return err
	}
	defer func() { _ = st.remove() }() // swept later if it stays
	dst := c.refFile(src.name(), ref)
	c.hook("git:ref:before")
	tmp := filepath.Join(st.dir, "ref")
	if err := writeSynced(tmp, b); err != nil {
		return err
	}
	if err := os.Rename(tmp, dst); err != nil {
		return fmt.Errorf("record ref: %w", err)
	}
	c.hook("git:ref:after")
	return nil
}
