package tool_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/repromill/repromill/runner/image/tool"
)

// TestUVIsVerified refuses what an index serves under the wheel's name.
func TestUVIsVerified(t *testing.T) {
	for name, page := range map[string]struct{ kind, body string }{
		"json": {"application/vnd.pypi.simple.v1+json", `{"files":[{"filename":%q,"url":"../../files/%s"}]}`},
		"html": {"text/html", `<a href="https://elsewhere.invalid/x">%q</a><a href="../../files/%s#sha256=0">w</a>`},
	} {
		t.Run(name, func(t *testing.T) {
			mux := http.NewServeMux()
			const file = "uv-" + tool.UVVersion + "-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"
			mux.HandleFunc("GET /simple/uv/", func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", page.kind)
				fmt.Fprintf(w, page.body, file, file)
			})
			served := 0
			mux.HandleFunc("GET /files/"+file, func(w http.ResponseWriter, _ *http.Request) { served++; w.Write([]byte("evil")) })
			srv := httptest.NewServer(mux)
			defer srv.Close()
			index, err := url.Parse(srv.URL + "/simple")
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			_, err = tool.UV(t.Context(), tool.Config{Dir: dir, Index: index})
			var user interface{ UserError() string }
			if served != 1 || !errors.As(err, &user) || !strings.Contains(err.Error(), "SHA-256") || !strings.Contains(user.UserError(), "images.uv") {
				t.Errorf("served %d, %v", served, err)
			}
			if left, _ := os.ReadDir(dir); len(left) != 0 {
				t.Errorf("left %v", left)
			}
		})
	}
}

func TestUVMissing(t *testing.T) {
	srv := httptest.NewServer(http.NotFoundHandler())
	defer srv.Close()
	index, err := url.Parse(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	for _, cfg := range []tool.Config{{}, {Arch: "s390x"}, {Index: index}} {
		cfg.Dir = t.TempDir()
		var missing *tool.MissingError
		if _, err := tool.UV(t.Context(), cfg); !errors.As(err, &missing) {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
}

func TestUVIsKept(t *testing.T) {
	dir := t.TempDir()
	at := filepath.Join(dir, "uv-"+tool.UVVersion+"-amd64")
	if err := os.WriteFile(at, []byte("x"), 0o755); err != nil {
		t.Fatal(err)
	}
	if got, err := tool.UV(t.Context(), tool.Config{Dir: dir}); err != nil || got != at {
		t.Errorf("%s, %v", got, err)
	}
}
