package image_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/repromill/repromill/runner/image"
)

// TestReleaseDates bounds an environment on an index that has no upload times,
// and whose server gives its files a date.
func TestReleaseDates(t *testing.T) {
	type file struct {
		body []byte
		when time.Time
	}
	day := func(year int) time.Time { return time.Date(year, 3, 1, 0, 0, 0, 0, time.UTC) }
	files := map[string]file{}
	add := func(name, version, requires string, when time.Time) {
		files[name+"-"+version+"-py3-none-any.whl"] = file{release(t, name, version, requires, "version = '"+version+"'\n"), when}
	}
	add("leaf", "1.0", "", day(2020))
	add("leaf", "1.1", "", day(2021))
	add("leaf", "1.2", "", day(2023))
	add("leaf", "2.0", "", day(2024))
	add("tree", "1.0", "leaf", day(2020))
	add("tree", "3.0", "leaf>=1.1", day(2024))
	add("forest", "1.0", "leaf>=2", day(2020))
	add("undated", "1.0", "", time.Time{})
	mux := http.NewServeMux()
	mux.HandleFunc("GET /simple/{name}/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		for f := range files {
			if strings.HasPrefix(f, r.PathValue("name")+"-") {
				fmt.Fprintf(w, `<a href="../../files/%s">%s</a>`, f, f)
			}
		}
	})
	mux.HandleFunc("GET /files/{name}", func(w http.ResponseWriter, r *http.Request) {
		f := files[r.PathValue("name")]
		http.ServeContent(w, r, r.PathValue("name"), f.when, bytes.NewReader(f.body))
	})
	l, err := net.Listen("tcp", "0.0.0.0:0")
	must(t, err)
	srv := httptest.NewUnstartedServer(mux)
	srv.Listener.Close()
	srv.Listener = l
	srv.Start()
	t.Cleanup(srv.Close)
	bound := day(2022)
	for name, tc := range map[string]struct {
		reqs []string
		lock []string
		used string
	}{
		"all have dates":  {[]string{"tree"}, []string{"leaf==1.1", "tree==1.0"}, "bounded by the dates of files"},
		"one has none":    {[]string{"tree", "undated"}, []string{"leaf==1.1", "tree==1.0", "undated==1.0"}, "bounded by the dates of files, unbounded: undated"},
		"a pin stays":     {[]string{"tree", "leaf==1.2"}, []string{"leaf==1.2", "tree==1.0"}, "bounded by the dates of files"},
		"it cannot be so": {[]string{"forest"}, []string{"leaf==2.0", "forest==1.0"}, "unbounded"},
	} {
		t.Run(name, func(t *testing.T) {
			b := builder(t, func(c *image.Config) {
				c.Index = image.Index{URL: fmt.Sprintf("http://172.17.0.1:%d/simple", l.Addr().(*net.TCPAddr).Port)}
			})
			req := image.EnvRequest{Environment: wants(tc.reqs...), Source: t.TempDir()}
			req.Environment.ExcludeNewer = &bound
			env, err := b.Environment(context.Background(), req)
			must(t, err)
			log, _ := os.ReadFile(env.Log)
			if env.Failure != nil || len(env.Deviations) != 1 || env.Deviations[0].What != "exclude_newer" || env.Deviations[0].Used != tc.used {
				t.Fatalf("%s %+v\n%s", env.Failure, env.Deviations, log)
			}
			for _, want := range tc.lock {
				if !strings.Contains(env.Lock, want+" ") {
					t.Errorf("want %s in\n%s", want, env.Lock)
				}
			}
		})
	}
}
