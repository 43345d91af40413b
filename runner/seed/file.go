package seed

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/repromill/repromill/planner/fetch"
	"github.com/repromill/repromill/results/atomicfile"
)

// maxFile bounds one file of a repository.
const maxFile = 1 << 40

// file makes one file present, and returns it with its size and hash.
func (c *Config) file(ctx context.Context, w Want, f File) (File, error) {
	repo := filepath.Join(Hub(c.Dir), w.folder())
	blobs := filepath.Join(repo, "blobs")
	link := filepath.Join(repo, "snapshots", w.Commit, filepath.FromSlash(f.Path))
	for _, dir := range []string{blobs, filepath.Dir(link)} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return f, err
		}
	}
	if f.SHA256 == "" || !sized(filepath.Join(blobs, f.SHA256), f.Size) {
		var err error
		if f, err = c.fetch(ctx, w, f, blobs); err != nil {
			return f, err
		}
	}
	target, err := filepath.Rel(filepath.Dir(link), filepath.Join(blobs, f.SHA256))
	if err != nil {
		return f, err
	}
	if at, err := os.Readlink(link); err == nil && at == target {
		return f, nil
	}
	tmp := link + "." + c.Who + ".tmp"
	_ = os.Remove(tmp)
	if err := os.Symlink(target, tmp); err != nil {
		return f, err
	}
	return f, atomicfile.Rename(tmp, link, atomicfile.Options{})
}

// sized reports whether a blob is there. Its name is its hash, which was compared
// before it got it.
func sized(name string, size int64) bool {
	info, err := os.Stat(name)
	return err == nil && info.Mode().IsRegular() && (size == 0 || info.Size() == size)
}

// fetch downloads a file to its place among the blobs.
func (c *Config) fetch(ctx context.Context, w Want, f File, blobs string) (File, error) {
	parts := []string{before(w.Repo), after(w.Repo), "resolve", w.Commit}
	if w.Kind == Dataset {
		parts = append([]string{"datasets"}, parts...)
	}
	u, err := c.Client.URL(fetch.HF, fetch.Path(append(parts, strings.Split(f.Path, "/")...)...), nil)
	if err != nil {
		return f, err
	}
	// By its name in the repository, so that whoever follows finds it.
	sum := sha256.Sum256([]byte(w.Commit + "/" + f.Path))
	part := filepath.Join(blobs, ".part-"+hex.EncodeToString(sum[:8]))
	for try := 0; ; try++ {
		got, err := c.download(ctx, w, u, f, part)
		if err != nil {
			return f, explain(w, f.Path, err)
		}
		if f.SHA256 == "" || got == f.SHA256 {
			f.SHA256 = got
			break
		}
		// What an earlier seed left may be damaged; what comes anew is not ours to mend.
		if err := os.Remove(part); err != nil {
			return f, err
		}
		if try > 0 {
			return f, &UserError{fmt.Sprintf("%s of %s has the SHA-256 %s, and %s was announced", f.Path, w, got, f.SHA256), "plan again; if that does not help, the site in between changes what it passes on"}
		}
	}
	info, err := os.Stat(part)
	if err != nil {
		return f, err
	}
	if f.Size = info.Size(); f.Size > 0 && !sized(part, f.Size) {
		return f, fmt.Errorf("%s is not what was written", f.Path)
	}
	c.Hook("seed:blob:before")
	if err := atomicfile.Rename(part, filepath.Join(blobs, f.SHA256), atomicfile.Options{}); err != nil {
		return f, err
	}
	c.Hook("seed:blob:after")
	return f, nil
}

// download goes on with a part of a file to its end and returns the hash of all.
func (c *Config) download(ctx context.Context, w Want, u string, f File, part string) (sha string, err error) {
	if f.Size == 0 || f.Size <= c.Chunk {
		return c.whole(ctx, u, part)
	}
	out, err := os.OpenFile(part, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	sum := sha256.New()
	at, err := io.Copy(sum, out)
	if err != nil {
		return "", err
	}
	if at > f.Size {
		if err := out.Truncate(0); err != nil {
			return "", err
		}
		return "", fmt.Errorf("%s was longer than it may be; it begins anew", f.Path)
	}
	for at < f.Size {
		n := min(c.Chunk, f.Size-at)
		res, err := c.Client.Get(ctx, fetch.Request{URL: u, Offset: at, Length: n, MaxBytes: at + n + 1<<20, NoStore: true})
		if err != nil {
			return "", err
		}
		if int64(len(res.Body)) != n || !strings.HasPrefix(res.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-%d/", at, at+n-1)) && res.Status == 206 {
			return "", fmt.Errorf("%s: %d bytes came of the %d from %d on", f.Path, len(res.Body), n, at)
		}
		if _, err := out.WriteAt(res.Body, at); err != nil {
			return "", fmt.Errorf("write %s to the cache: %w", f.Path, err)
		}
		sum.Write(res.Body)
		at += n
		c.Hook("seed:chunk:after")
		c.Tell(fmt.Sprintf("%s: %s, %d of %d MB", w, f.Path, at/1e6, f.Size/1e6))
	}
	return hex.EncodeToString(sum.Sum(nil)), out.Sync()
}

// whole gets a small file, or one whose size nobody knows, in one piece.
func (c *Config) whole(ctx context.Context, u, part string) (sha string, err error) {
	res, err := c.Client.Get(ctx, fetch.Request{URL: u, MaxBytes: maxFile, NoBody: true})
	if err != nil {
		return "", err
	}
	in, err := os.Open(res.Path)
	if err != nil {
		return "", err
	}
	defer in.Close()
	out, err := os.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	_, err = io.Copy(io.MultiWriter(out, sum), in)
	if err = errors.Join(err, out.Sync(), out.Close()); err != nil {
		return "", fmt.Errorf("write to the cache: %w", err)
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}
