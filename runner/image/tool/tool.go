// Package tool gets the static programs that make environments, in a known
// version: from a configured place, or once from the package index, verified
// against a digest that is part of this program.
package tool

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/net/html"

	"github.com/repromill/repromill/results/atomicfile"
)

// UVVersion is the uv that resolves and installs. It is part of every
// environment's key, since another version may resolve to another set.
const UVVersion = "0.13.9"

// wheel is a file of the package index with its digest.
type wheel struct{ file, sha256 string }

// uvWheels are the wheels of uv on pypi.org by Go architecture.
var uvWheels = map[string]wheel{
	"amd64": {"uv-0.13.9-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl", "d7f459fe4fd247d830351c75686d3996ace3c6f3f728eb0e85a30b7ada0cef19"},
	"arm64": {"uv-0.13.9-py3-none-manylinux_2_17_aarch64.manylinux2014_aarch64.musllinux_1_1_aarch64.whl", "5435c5ce14a56431208ca0996416d310f1598e8c2c8ba707688985a16bb82dbe"},
}

// maxWheel bounds a download.
const maxWheel = 128 << 20

// Config says where tools come from.
type Config struct {
	Dir   string       // where a fetched tool is kept
	Arch  string       // of the containers it runs in, as Go names it; empty means amd64
	Index *url.URL     // package index in the form of PEP 503 or PEP 691; nil: none is asked
	HTTP  *http.Client // nil: http.DefaultClient
	Hook  func(point string)
}

// MissingError says that a tool is not at hand and how to get it.
type MissingError struct {
	Tool, Fix string
	Err       error
}

func (e *MissingError) Error() string {
	return fmt.Sprintf("%s is not at hand: %v; %s", e.Tool, e.Err, e.Fix)
}

// UserError is what to do.
func (e *MissingError) UserError() string { return e.Fix }

// Unwrap gives the cause.
func (e *MissingError) Unwrap() error { return e.Err }

const uvFix = "set images.uv to a uv " + UVVersion + " binary, or indexes.url to a package index that has it"

// UV returns the path of uv, fetching it from the index when it is not there.
func UV(ctx context.Context, cfg Config) (string, error) {
	if cfg.Arch == "" {
		cfg.Arch = "amd64"
	}
	w, ok := uvWheels[cfg.Arch]
	if !ok {
		return "", &MissingError{"uv", uvFix, fmt.Errorf("no build of it is known for %s", cfg.Arch)}
	}
	at := filepath.Join(cfg.Dir, "uv-"+UVVersion+"-"+cfg.Arch)
	if _, err := os.Stat(at); err == nil {
		return at, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("look for uv: %w", err)
	}
	if cfg.Index == nil {
		return "", &MissingError{"uv", uvFix, errors.New("no package index is configured")}
	}
	body, err := fetch(ctx, cfg, w)
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	if err != nil {
		return "", &MissingError{"uv", uvFix, err}
	}
	bin, err := program(body, "uv")
	if err != nil {
		return "", &MissingError{"uv", uvFix, err}
	}
	if err := atomicfile.MkdirAll(cfg.Dir, 0o755); err != nil {
		return "", fmt.Errorf("keep uv: %w", err)
	}
	return at, atomicfile.Write(at, bin, atomicfile.Options{Perm: 0o755, Hook: cfg.Hook, Point: "tool:uv"})
}

// fetch downloads a wheel from the index and compares its digest.
func fetch(ctx context.Context, cfg Config, w wheel) ([]byte, error) {
	page := *cfg.Index
	page.Path = strings.TrimSuffix(page.Path, "/") + "/uv/"
	body, final, kind, err := get(ctx, cfg, page.String(), 32<<20)
	if err != nil {
		return nil, err
	}
	link, err := find(body, kind, w.file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", page.Redacted(), err)
	}
	file, err := final.Parse(link)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", page.Redacted(), err)
	}
	body, _, _, err = get(ctx, cfg, file.String(), maxWheel)
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(body); hex.EncodeToString(sum[:]) != w.sha256 {
		return nil, fmt.Errorf("%s has the SHA-256 %x, not %s", w.file, sum, w.sha256)
	}
	return body, nil
}

func get(ctx context.Context, cfg Config, from string, limit int64) (body []byte, final *url.URL, kind string, err error) {
	client := cfg.HTTP
	if client == nil {
		client = http.DefaultClient
	}
	for try := range 3 {
		if try > 0 {
			select {
			case <-ctx.Done():
				return nil, nil, "", ctx.Err()
			case <-time.After(time.Duration(try) * time.Second):
			}
		}
		var req *http.Request
		if req, err = http.NewRequestWithContext(ctx, http.MethodGet, from, nil); err != nil {
			return nil, nil, "", fmt.Errorf("get tool: %w", err)
		}
		req.Header.Set("Accept", "application/vnd.pypi.simple.v1+json, text/html;q=0.1, */*;q=0.01")
		var resp *http.Response
		if resp, err = client.Do(req); err != nil {
			continue
		}
		body, err = io.ReadAll(io.LimitReader(resp.Body, limit+1))
		resp.Body.Close()
		switch {
		case err != nil:
			continue
		case resp.StatusCode >= 500:
			err = fmt.Errorf("%s answers %s", req.URL.Redacted(), resp.Status)
			continue
		case resp.StatusCode != http.StatusOK:
			return nil, nil, "", fmt.Errorf("%s answers %s", req.URL.Redacted(), resp.Status)
		case int64(len(body)) > limit:
			return nil, nil, "", fmt.Errorf("%s is larger than %d bytes", req.URL.Redacted(), limit)
		}
		return body, resp.Request.URL, resp.Header.Get("Content-Type"), nil
	}
	return nil, nil, "", err
}

// find gives the link to a file on an index page, in JSON (PEP 691) or HTML
// (PEP 503).
func find(body []byte, kind, file string) (string, error) {
	if strings.Contains(kind, "json") {
		var page struct {
			Files []struct{ Filename, URL string }
		}
		if err := json.Unmarshal(body, &page); err != nil {
			return "", fmt.Errorf("read the index: %w", err)
		}
		for _, f := range page.Files {
			if f.Filename == file {
				return f.URL, nil
			}
		}
		return "", fmt.Errorf("the index has no %s", file)
	}
	z := html.NewTokenizer(bytes.NewReader(body))
	for {
		switch z.Next() {
		case html.ErrorToken:
			return "", fmt.Errorf("the index has no %s", file)
		case html.StartTagToken:
			tok := z.Token()
			for _, a := range tok.Attr {
				link, _, _ := strings.Cut(a.Val, "#")
				if tok.Data == "a" && a.Key == "href" && path.Base(link) == file {
					return link, nil
				}
			}
		}
	}
}

// program takes one program out of a wheel.
func program(body []byte, name string) ([]byte, error) {
	z, err := zip.NewReader(bytes.NewReader(body), int64(len(body)))
	if err != nil {
		return nil, fmt.Errorf("open wheel: %w", err)
	}
	for _, f := range z.File {
		if strings.HasSuffix(f.Name, ".data/scripts/"+name) {
			r, err := f.Open()
			if err != nil {
				return nil, fmt.Errorf("open wheel: %w", err)
			}
			defer r.Close()
			bin, err := io.ReadAll(io.LimitReader(r, 4*maxWheel))
			if err != nil {
				return nil, fmt.Errorf("open wheel: %w", err)
			}
			return bin, nil
		}
	}
	return nil, fmt.Errorf("the wheel has no program %s", name)
}
