package server

import (
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/repromill/repromill/planner/model"
	"github.com/repromill/repromill/planner/spec"
)

// The engines whose commands are known; every other way is a command template
// or docker:IMAGE.
const (
	VLLM   = "vllm"
	SGLang = "sglang"
	// Own is the engine that comes with this program, for small models on the CPU.
	Own = "repromill"

	dockerPrefix = "docker:"
)

// command is how an arm is started.
type command struct {
	engine string // vllm, sglang, or "" for any other
	argv   []string
	env    map[string]string
	image  string // of a container; argv is its arguments
	gpus   int    // that it needs
}

// place is where a server is to listen.
type place struct {
	host string
	port int
}

var (
	assignment  = regexp.MustCompile(`^[A-Z_][A-Z0-9_]*=`)
	placeholder = regexp.MustCompile(`\{[a-z_]+\}`)
)

// placeholders of a command template.
const placeholders = "{port}, {host}, {model}, {revision}, {name}, {tp}, {gpus} and {flags}"

// CheckTemplate refuses a way of serving that cannot be carried out, before
// anything is started. Its error is a [*UserError].
func CheckTemplate(how string) error {
	_, err := compose(how, spec.Arm{Name: "ARM", Model: "owner/model"}, place{"127.0.0.1", 1})
	return err
}

// compose makes the command of an arm: how is vllm, sglang, repromill,
// docker:IMAGE, docker:IMAGE with a template of the command in it, or a template.
func compose(how string, arm spec.Arm, at place) (*command, error) {
	if image, ok := strings.CutPrefix(how, dockerPrefix); ok {
		return composeImage(image, arm, at)
	}
	switch how {
	case "":
		return nil, &UserError{fmt.Sprintf("nobody says how arm %s is served", arm.Name), fmt.Sprintf("give --server %s=vllm, or a command with {port} and {model}", arm.Name)}
	case VLLM, SGLang:
		return composeEngine(how, arm, at)
	case Own:
		return composeOwn(arm, at), nil
	}
	return composeTemplate(how, arm, at)
}

// composeEngine is the command of a known engine with the arm's own flags, which
// may be flags alone or a whole serving command.
func composeEngine(engine string, arm spec.Arm, at place) (*command, error) {
	c := &command{engine: engine, env: map[string]string{}}
	words := c.takeEnv(arm.Flags)
	if len(words) > 0 && !strings.HasPrefix(words[0], "-") {
		if base := filepath.Base(words[0]); base == "docker" || base == "podman" || base == "sudo" {
			return nil, &UserError{fmt.Sprintf("arm %s is served by a command of %s, which leaves its server running when it is stopped", arm.Name, base),
				fmt.Sprintf("give the flags alone, and the image by --server %s=docker:IMAGE", arm.Name)}
		}
		c.argv = append(without(words, "--host", "--port"), "--host", at.host, "--port", strconv.Itoa(at.port))
		c.gpus = c.gpusOf(arm, words)
		return c, nil
	}
	if engine == SGLang {
		c.argv = []string{"python3", "-m", "sglang.launch_server"}
	} else {
		c.argv = []string{"vllm"}
	}
	c.argv = append(c.argv, arguments(engine, arm, words, at)...)
	c.gpus = c.gpusOf(arm, words)
	return c, nil
}

// composeOwn is the command of the engine that comes with this program. A whole
// serving command among the arm's flags is another engine's.
func composeOwn(arm spec.Arm, at place) *command {
	c := &command{engine: Own, env: map[string]string{}}
	flags := c.takeEnv(arm.Flags)
	if len(flags) > 0 && !strings.HasPrefix(flags[0], "-") {
		flags = nil
	}
	c.argv = append([]string{Own, "engine", "serve", arm.Model, "--host", at.host, "--port", strconv.Itoa(at.port)}, without(flags, "--host", "--port")...)
	return c
}

// arguments are those of an engine's own server for an arm.
func arguments(engine string, arm spec.Arm, flags []string, at place) []string {
	flags = without(flags, "--host", "--port", "--model", "--model-path")
	has := func(name string) bool {
		a, err := model.ParseArm(arm.Name, "serve "+arm.Model+" "+quote(flags))
		return err == nil && a.Settings[name] != ""
	}
	var out []string
	if engine == SGLang {
		out = append(out, "--model-path", arm.Model)
	} else {
		out = append(out, "serve", arm.Model)
	}
	out = append(out, "--host", at.host, "--port", strconv.Itoa(at.port))
	if arm.Revision != "" && !isDir(arm.Model) && !has("revision") {
		out = append(out, "--revision", arm.Revision)
	}
	if arm.TP > 1 && !has("tensor_parallel_size") {
		out = append(out, map[string]string{VLLM: "--tensor-parallel-size", SGLang: "--tp-size"}[engine], strconv.Itoa(arm.TP))
	}
	if arm.KVDtype != "" && !has("kv_cache_dtype") {
		out = append(out, "--kv-cache-dtype", arm.KVDtype)
	}
	if engine == SGLang && !slices.Contains(flags, "--enable-metrics") {
		out = append(out, "--enable-metrics") // without it nobody sees preemptions and the cache
	}
	return append(out, flags...)
}

// composeImage is a container of an engine's own image.
func composeImage(image string, arm spec.Arm, at place) (*command, error) {
	if image == "" {
		image = arm.Image
	}
	if image, command, ok := strings.Cut(image, " "); ok {
		c, err := composeTemplate(command, arm, at)
		if err == nil {
			c.image = image
		}
		return c, err
	}
	if image == "" {
		return nil, &UserError{fmt.Sprintf("no image is named for arm %s", arm.Name), fmt.Sprintf("give --server %s=docker:vllm/vllm-openai:v0.11.0", arm.Name)}
	}
	c := &command{engine: VLLM, env: map[string]string{}, image: image}
	words := c.takeEnv(arm.Flags)
	if len(words) > 0 && !strings.HasPrefix(words[0], "-") {
		c.argv = append(without(words, "--host", "--port"), "--host", at.host, "--port", strconv.Itoa(at.port))
		if c.engine = engineOf(image + " " + strings.Join(words, " ")); c.engine == "" {
			c.gpus = arm.GPUs // as for a command template
			return c, nil
		}
	} else if strings.Contains(image, "sglang") {
		c.engine = SGLang
		c.argv = append([]string{"python3", "-m", "sglang.launch_server"}, arguments(SGLang, arm, words, at)...)
	} else if strings.Contains(image, "vllm") {
		// The image's entry point is the server, which takes the model as a flag.
		c.argv = append([]string{"--model", arm.Model}, arguments(VLLM, arm, words, at)[2:]...)
	} else {
		return nil, &UserError{fmt.Sprintf("it is not known how image %s serves", image), fmt.Sprintf("give the whole command inside of it: --serve '%s=COMMAND --model %s'", arm.Name, arm.Model)}
	}
	c.gpus = c.gpusOf(arm, words)
	return c, nil
}

// composeTemplate fills in a command that the user wrote.
func composeTemplate(how string, arm spec.Arm, at place) (*command, error) {
	words, ok := model.Words(how)
	if !ok {
		return nil, &UserError{fmt.Sprintf("in the serving command of arm %s a quote is not closed: %.80q", arm.Name, how), "close it"}
	}
	c := &command{env: map[string]string{}}
	words = c.takeEnv(words)
	if len(words) == 0 {
		return nil, &UserError{fmt.Sprintf("the serving command of arm %s is empty", arm.Name), "write it as for a shell, with {port} where the port belongs"}
	}
	if !strings.Contains(how, "{port}") {
		return nil, &UserError{fmt.Sprintf("the serving command of arm %s does not say where the port belongs: %.80q", arm.Name, how), "write {port} in it: the port is chosen anew for each start"}
	}
	flags := (&command{env: map[string]string{}}).takeEnv(arm.Flags)
	if len(flags) > 0 && !strings.HasPrefix(flags[0], "-") {
		flags = nil // a whole command, which the template stands in for
	}
	c.gpus = arm.GPUs
	if strings.Contains(how, "{gpus}") || strings.Contains(how, "{tp}") {
		c.gpus = max(1, c.gpusOf(arm, flags))
	}
	values := map[string]string{"{port}": strconv.Itoa(at.port), "{host}": at.host, "{model}": arm.Model, "{revision}": arm.Revision,
		"{name}": arm.Name, "{tp}": strconv.Itoa(max(1, arm.TP)), "{gpus}": strconv.Itoa(c.gpus)}
	for _, w := range words {
		if w == "{flags}" {
			c.argv = append(c.argv, flags...)
			continue
		}
		for _, p := range placeholder.FindAllString(w, -1) {
			if _, ok := values[p]; !ok {
				return nil, &UserError{fmt.Sprintf("the serving command of arm %s holds %s, which stands for nothing", arm.Name, p), "the placeholders are " + placeholders}
			}
		}
		for p, v := range values {
			w = strings.ReplaceAll(w, p, v)
		}
		c.argv = append(c.argv, w)
	}
	c.engine = engineOf(strings.Join(c.argv, " "))
	return c, nil
}

// engineOf recognises an engine in a command, "" for none that is known.
func engineOf(command string) string {
	for _, e := range [][2]string{{"engine serve", Own}, {"sglang", SGLang}, {"vllm", VLLM}, {"trtllm", "trtllm"}, {"llama_cpp", "llama.cpp"}, {"llama-server", "llama.cpp"}, {"transformers", "transformers"}} {
		if strings.Contains(command, e[0]) {
			return e[1]
		}
	}
	return ""
}

// takeEnv takes the leading assignments off a command.
func (c *command) takeEnv(words []string) []string {
	words = slices.Clone(words)
	for len(words) > 0 && assignment.MatchString(words[0]) {
		k, v, _ := strings.Cut(words[0], "=")
		c.env[k] = v
		words = words[1:]
	}
	return words
}

// gpusOf is how many GPUs an arm needs: what the plan says, else what its flags
// multiply to.
func (c *command) gpusOf(arm spec.Arm, flags []string) int {
	if arm.GPUs > 0 {
		return arm.GPUs
	}
	a, err := model.ParseArm(arm.Name, "serve "+arm.Model+" "+quote(flags))
	if err != nil {
		return max(1, arm.TP)
	}
	if _, gpus := a.Parallel(); gpus > 0 {
		if a.Settings["tensor_parallel_size"] == "" {
			gpus *= max(1, arm.TP)
		}
		return gpus
	}
	return max(1, arm.TP)
}

// without leaves flags out, each with its value.
func without(words []string, names ...string) (out []string) {
	for i := 0; i < len(words); i++ {
		name, _, joined := strings.Cut(words[i], "=")
		if !slices.Contains(names, name) {
			out = append(out, words[i])
			continue
		}
		if !joined && i+1 < len(words) && !strings.HasPrefix(words[i+1], "-") {
			i++
		}
	}
	return out
}

// quote writes words so that a shell reads them again as they are.
func quote(words []string) string {
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = w
		if w == "" || strings.ContainsAny(w, " \t\n'\"\\$&|;<>()*?[]#~`{}!") {
			out[i] = "'" + strings.ReplaceAll(w, "'", `'"'"'`) + "'"
		}
	}
	return strings.Join(out, " ")
}

// environ is a process's environment: the caller's, with more over it.
func environ(base []string, more ...map[string]string) []string {
	env := map[string]string{}
	for _, kv := range base {
		if k, v, ok := strings.Cut(kv, "="); ok && k != "" {
			env[k] = v
		}
	}
	for _, m := range more {
		maps.Copy(env, m)
	}
	out := make([]string, 0, len(env))
	for k, v := range env {
		out = append(out, k+"="+v)
	}
	slices.Sort(out)
	return out
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// freePort is a port of the host's that nobody listens on.
func freePort(host string) (int, error) {
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// portFree reports whether a port can be listened on.
func portFree(at place) bool {
	l, err := net.Listen("tcp", net.JoinHostPort(at.host, strconv.Itoa(at.port)))
	if err == nil {
		l.Close()
	}
	return err == nil
}
