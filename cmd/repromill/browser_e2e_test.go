//go:build e2e

package main

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// browser is a Chromium with what it complained of and whom it asked.
type browser struct {
	ctx   context.Context
	mu    sync.Mutex
	wrong []string
	hosts map[string]bool
}

func newBrowser(t *testing.T) *browser {
	t.Helper()
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if p, err := exec.LookPath(name); err == nil {
			path = p
			break
		}
	}
	if path == "" {
		t.Skip("needs Chromium: `make e2e-web` installs it where apt-get can")
	}
	opts := []chromedp.ExecAllocatorOption{chromedp.ExecPath(path), chromedp.UserDataDir(t.TempDir()), chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU, chromedp.NoFirstRun}
	for _, f := range []string{"disable-quic", "disable-background-networking", "disable-component-update", "disable-sync", "hide-scrollbars"} {
		opts = append(opts, chromedp.Flag(f, true))
	}
	alloc, stopAlloc := chromedp.NewExecAllocator(t.Context(), append(opts, chromedp.WSURLReadTimeout(time.Minute))...)
	ctx, stop := chromedp.NewContext(alloc)
	ctx, cancel := context.WithTimeout(ctx, 8*time.Minute)
	t.Cleanup(func() { cancel(); stop(); stopAlloc() })
	b := &browser{ctx: ctx, hosts: map[string]bool{}}
	chromedp.ListenTarget(ctx, func(ev any) {
		b.mu.Lock()
		defer b.mu.Unlock()
		switch e := ev.(type) {
		case *runtime.EventExceptionThrown:
			b.wrong = append(b.wrong, e.ExceptionDetails.Error())
		case *log.EventEntryAdded:
			if e.Entry.Level == log.LevelError {
				b.wrong = append(b.wrong, e.Entry.Text+" "+e.Entry.URL)
			}
		case *network.EventRequestWillBeSent:
			if u, err := url.Parse(e.Request.URL); err == nil && u.Host != "" {
				b.hosts[u.Host] = true
			}
		}
	})
	if err := chromedp.Run(ctx, network.Enable(), log.Enable()); err != nil {
		t.Fatalf("start Chromium: %v", err)
	}
	return b
}

func (b *browser) do(t *testing.T, what string, actions ...chromedp.Action) {
	t.Helper()
	if err := chromedp.Run(b.ctx, actions...); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// look is how a page is looked at.
type look struct {
	name  string
	width int64
	dark  bool
}

// shoot takes a picture of the whole page, and refuses one that is wider than
// its window.
func (b *browser) shoot(t *testing.T, dir, page string, l look) {
	t.Helper()
	scheme := map[bool]string{true: "dark", false: "light"}[l.dark]
	var png []byte
	var over int
	b.do(t, "picture of "+page,
		emulation.SetDeviceMetricsOverride(l.width, 900, 1, l.width < 600),
		emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}),
		chromedp.Sleep(150*time.Millisecond),
		chromedp.Evaluate("document.documentElement.scrollWidth - window.innerWidth", &over),
		chromedp.FullScreenshot(&png, 100))
	if over > 0 {
		t.Errorf("%s (%s) is %d pixels wider than its window", page, l.name, over)
	}
	if err := os.WriteFile(filepath.Join(dir, page+"-"+l.name+".png"), png, 0o644); err != nil {
		t.Fatal(err)
	}
}

// measure puts a measurement of a simulated server into the results.
func (s *served) measure() {
	s.t.Helper()
	address := filepath.Join(s.dir, "load-server")
	server := s.command(nil, "load", "server", "--port", "0", "--step", "2ms", "--address-file", address)
	if err := server.Start(); err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = server.Process.Kill(); _ = server.Wait() }()
	deadline := time.Now().Add(time.Minute)
	for {
		if at, err := os.ReadFile(address); err == nil && len(at) > 0 {
			s.output("load", "--url", strings.TrimSpace(string(at)), "--concurrency", "1,4,16", "--isl", "32", "--osl", "6", "--requests", "32", "--no-self-check")
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatal("the simulated server does not start")
		}
		time.Sleep(50 * time.Millisecond)
	}
}

var windows = []look{{"desktop", 1280, false}, {"narrow", 390, false}, {"dark", 1280, true}}

// TestBrowser goes the way of a person: paste, look at the plan, approve, watch,
// read the verdict; also with the keyboard alone and without scripts.
func TestBrowser(t *testing.T) {
	b := newBrowser(t)
	s := newServed(t, buildOnce(t))
	s.start()
	dir := shots(t)
	all := func(page string) {
		for _, l := range windows {
			b.shoot(t, dir, page, l)
		}
	}
	var state, verdict, claims, where string
	b.do(t, "paste", chromedp.Navigate(s.url()), chromedp.WaitVisible("#target"))
	all("submit")
	b.do(t, "plan", chromedp.SendKeys("#target", "https://arxiv.org/abs/2604.08075"), chromedp.Click("#plan-it"),
		chromedp.WaitVisible("#approve"), chromedp.Text(".status", &state))
	if !strings.Contains(state, "waits for approval") {
		t.Errorf("state = %q", state)
	}
	all("plan")
	b.do(t, "edit", chromedp.Click(`a[href$="/plan"]`), chromedp.WaitVisible("#plan"), chromedp.SendKeys("#timeout", "7"), chromedp.Click(`button[value=diff]`), chromedp.WaitVisible("#diff"))
	all("edit")
	b.do(t, "approve", chromedp.NavigateBack(), chromedp.WaitVisible("#plan"), chromedp.NavigateBack(), chromedp.WaitVisible("#approve"),
		chromedp.Click("#approve"), chromedp.WaitVisible(".stage-started, .verdict-card"))
	b.shoot(t, dir, "running", windows[0])
	// Nothing is pressed from here on: the page follows the run by itself.
	b.do(t, "watch", chromedp.WaitVisible(".verdict-card .verdict-word"), chromedp.Text(".verdict-card .verdict-word", &verdict),
		chromedp.Text("table.claims", &claims), chromedp.Location(&where))
	if !strings.Contains(verdict, "partially aligned") || !strings.Contains(claims, "66.35") {
		t.Errorf("verdict = %q, claims = %.300q", verdict, claims)
	}
	all("verdict")
	b.do(t, "without scripts", emulation.SetScriptExecutionDisabled(true), chromedp.Navigate(where), chromedp.Text(".verdict-card .verdict-word", &verdict))
	if !strings.Contains(verdict, "partially aligned") {
		t.Errorf("without scripts the verdict is %q", verdict)
	}
	b.do(t, "with scripts", emulation.SetScriptExecutionDisabled(false), chromedp.Navigate(s.url()+"/abs/2604.08075v1"), chromedp.WaitVisible(".verdict-card"))
	all("paper")
	s.measure()
	var cells, drawn string
	b.do(t, "a measurement", chromedp.Navigate(s.url()+"/loads"), chromedp.WaitVisible("table.runs"))
	all("loads")
	b.do(t, "its frontier", chromedp.Click("table.runs a"), chromedp.WaitVisible("figure svg"), chromedp.Text("figure", &drawn), chromedp.Text("main", &cells))
	if !strings.Contains(drawn, "TTFT") || !strings.Contains(cells, "simulated") || strings.Count(cells, "closed-c") < 3 {
		t.Errorf("drawn %q, cells %.600q", drawn, cells)
	}
	all("load")
	for page, path := range map[string]string{"runs": "/runs", "skus": "/skus", "sku": "/skus/h200", "api": "/api", "nightly": "/nightly", "compare": "/compare", "model": "/nvidia/Qwen3.6-27B-NVFP4"} {
		b.do(t, page, chromedp.Navigate(s.url()+path), chromedp.WaitVisible("main"))
		all(page)
	}
	var focus string
	b.do(t, "keyboard", chromedp.Navigate(s.url()+"/runs"), chromedp.WaitVisible("main"), chromedp.KeyEvent("\t"),
		chromedp.Evaluate("document.activeElement.className", &focus))
	if focus != "skip" {
		t.Errorf("the first stop of the keyboard is %q, want the way to the content", focus)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, w := range b.wrong {
		t.Errorf("the browser complains: %s", w)
	}
	if fmt.Sprint(b.hosts) != fmt.Sprintf("map[%s:true]", s.addr) {
		t.Errorf("the pages asked %v", b.hosts)
	}
}
