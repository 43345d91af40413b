package recipe

import (
	"fmt"
	"path"
	"regexp"
	"strconv"
	"strings"

	"github.com/repromill/repromill/planner/inspect"
	"github.com/repromill/repromill/planner/spec"
)

// launchers start a Python file or module that follows their own options.
var launchers = map[string]bool{"torchrun": true, "accelerate": true, "deepspeed": true, "horovodrun": true, "mpirun": true, "mpiexec": true}

// launcherModules are launchers started as "python -m".
var launcherModules = map[string]bool{"torch.distributed.launch": true, "torch.distributed.run": true, "accelerate.commands.launch": true}

var (
	pythonRE = regexp.MustCompile(`^(?:\./)?(?:[\w./\-]*/)?python[0-9.]*$`)
	nprocRE  = regexp.MustCompile(`^--?(?:nproc[_-]per[_-]node|num[_-]processes|num[_-]gpus|np|n)$`)
	nodesRE  = regexp.MustCompile(`^--?(?:nnodes|num[_-]machines|num[_-]nodes)$`)
)

// entry finds the file that the argument vector executes.
func (r *resolver) entry(c *Command, dir string) {
	w := c.Argv
	if len(w) > 0 && pythonRE.MatchString(w[0]) {
		w = append([]string{"python"}, w[1:]...)
		c.Argv = w
	}
	for len(w) > 2 && (w[0] == "uv" || w[0] == "poetry" || w[0] == "pdm" || w[0] == "pipenv" || w[0] == "pixi") && w[1] == "run" {
		c.Tool, w = w[0], w[2:]
		for len(w) > 1 && strings.HasPrefix(w[0], "--") {
			w = w[1:]
		}
		c.Argv = w // the environment is made by this program
	}
	for len(w) > 1 && (wrappers[w[0]] || w[0] == "xvfb-run" || strings.HasPrefix(w[0], "-") && w[0] != "-m") {
		w = w[1:]
	}
	if len(w) == 0 {
		return
	}
	c.Program = path.Base(w[0])
	switch base := c.Program; {
	case pythonRE.MatchString(w[0]):
		c.Program = "python"
		r.python(c, w[1:], dir)
	case launchers[base]:
		rest := w[1:]
		if base == "accelerate" {
			if len(rest) == 0 || rest[0] != "launch" {
				c.Program = "accelerate-tool"
				return
			}
			rest = rest[1:]
		}
		r.launched(c, rest, dir)
	case base == "bash" || base == "sh" || base == "zsh":
		rest := w[1:]
		for len(rest) > 0 && strings.HasPrefix(rest[0], "-") {
			rest = rest[1:]
		}
		if len(rest) > 0 {
			r.file(c, rest[0], dir)
			c.Args = rest[1:]
		}
	case strings.HasSuffix(base, ".sh") || strings.HasSuffix(base, ".py") || strings.HasPrefix(w[0], "./"):
		r.file(c, w[0], dir)
		c.Args = w[1:]
		if c.Missing == "" && c.Entry != "" {
			r.explicit(c, w)
		}
	case base == "jupyter" || base == "papermill":
		for _, a := range w[1:] {
			if strings.HasSuffix(a, ".ipynb") && c.Entry == "" {
				r.file(c, a, dir)
			}
		}
		c.Args = w[1:]
	default:
		c.Args = w[1:]
		if con := r.f.Console(w[0]); con != nil {
			r.console(c, con, w)
		}
	}
}

// console resolves a program that installing the project provides. One whose
// declaration names no function cannot be installed by pip, so its module is
// started instead.
func (r *resolver) console(c *Command, con *inspect.Console, w []string) {
	p := r.f.Module(con.Dir, con.Module)
	if p == "" {
		c.Missing = fmt.Sprintf("%s starts module %s, which is not in the repository", con.Name, con.Module)
		return
	}
	c.Entry = p
	if con.Func != "" {
		c.Installed = con.Dir
		return
	}
	if c.Cwd != con.Dir {
		c.Missing = fmt.Sprintf("%s names a module without a function in %s, and the command does not start in %s", con.Name, con.File, con.Dir)
		return
	}
	before := strings.Join(w, " ")
	c.Argv = append([]string{"python", "-m", con.Module}, w[1:]...)
	c.Program, c.Module, c.Quoted = "python", con.Module, false
	c.Patches = append(c.Patches, spec.Patch{Kind: "flag", Line: c.Line, Before: before, After: strings.Join(c.Argv, " "),
		Reason: fmt.Sprintf("%s:%d declares %s without a function, which pip refuses to install; the module itself is started", con.File, con.Line, con.Name)})
}

// explicit puts the interpreter before a script that is named alone, so that
// neither a file mode nor the search path matters.
func (r *resolver) explicit(c *Command, w []string) {
	rel := w[0]
	if path.Join(c.Cwd, rel) != c.Entry {
		rel = relTo(c.Cwd, c.Entry)
	}
	prog := "bash"
	if strings.HasSuffix(c.Entry, ".py") {
		prog = "python"
	} else if s := r.f.Script(c.Entry); s != nil && s.Interpreter == "sh" {
		prog = "sh"
	}
	c.Argv = append([]string{prog, rel}, w[1:]...)
	c.Program = prog
	c.Quoted = false
}

// relTo is target seen from dir, both from the root of the checkout.
func relTo(dir, target string) string {
	if dir == "." || dir == "" {
		return target
	}
	if strings.HasPrefix(target, dir+"/") {
		return target[len(dir)+1:]
	}
	return strings.Repeat("../", strings.Count(dir, "/")+1) + target
}

func (r *resolver) python(c *Command, w []string, dir string) {
	for len(w) > 0 && strings.HasPrefix(w[0], "-") && w[0] != "-m" && w[0] != "-c" && w[0] != "-" {
		if (w[0] == "-W" || w[0] == "-X") && len(w) > 1 {
			w = w[1:]
		}
		w = w[1:]
	}
	switch {
	case len(w) == 0:
	case w[0] == "-c" || w[0] == "-":
		c.Args = w
	case w[0] == "-m" && len(w) > 1:
		if launcherModules[w[1]] {
			r.launched(c, w[2:], dir)
			return
		}
		r.module(c, w[1], dir)
		c.Args = w[2:]
	default:
		r.file(c, w[0], dir)
		c.Args = w[1:]
	}
}

func (r *resolver) module(c *Command, name, dir string) {
	c.Module = name
	for _, base := range []string{c.Cwd, ".", dir} {
		if p := r.f.Module(base, name); p != "" {
			c.Entry, c.Cwd = p, base
			return
		}
	}
	top, _, _ := strings.Cut(name, ".")
	if r.f.HasDir(path.Join(c.Cwd, top)) && !inspect.Stdlib(name) {
		c.Missing = fmt.Sprintf("module %s is not in the repository", name)
	}
}

// launched reads the options of a launcher up to the file or module it starts.
func (r *resolver) launched(c *Command, w []string, dir string) {
	for i := 0; i < len(w); i++ {
		a := w[i]
		name, val, eq := strings.Cut(a, "=")
		if !eq && i+1 < len(w) {
			val = w[i+1]
		}
		switch {
		case nprocRE.MatchString(name):
			if n, err := strconv.Atoi(val); err == nil {
				c.GPUs = n
			}
		case nodesRE.MatchString(name):
			if n, err := strconv.Atoi(strings.SplitN(val, ":", 2)[0]); err == nil {
				c.Nodes = n
			}
		case a == "-m" || a == "--module":
			if i+1 < len(w) {
				r.module(c, w[i+1], dir)
				c.Args = w[i+2:]
			}
			return
		case strings.HasSuffix(a, ".py"):
			r.file(c, a, dir)
			c.Args = w[i+1:]
			return
		}
	}
}

// file resolves the path of an entry file: from the working directory, then
// from the root, then from the document's own directory. A file that is only
// found elsewhere moves the working directory there.
func (r *resolver) file(c *Command, name, dir string) {
	if strings.ContainsAny(name, "$<{*?") || strings.HasPrefix(name, "-") {
		c.Missing = fmt.Sprintf("entry file %s is a placeholder", name)
		return
	}
	if path.IsAbs(name) {
		c.Missing = fmt.Sprintf("entry file %s is outside the repository", name)
		return
	}
	for _, base := range []string{c.Cwd, ".", dir, c.last} {
		if p := path.Join(base, name); base != "" && r.f.Has(p) {
			c.Entry, c.Cwd = p, base
			return
		}
	}
	c.Missing = fmt.Sprintf("entry file %s is not in the repository", name)
	if p := r.similar(c.Cwd, name); p != "" {
		r.replaceEntry(c, name, p)
		return
	}
	// a file of that very path elsewhere is a README that leaves out a "cd"
	var found []string
	for _, f := range r.f.Files {
		if strings.HasSuffix(f.Path, "/"+path.Clean(name)) && !f.Link {
			found = append(found, f.Path)
		}
	}
	if len(found) == 0 || len(found) > 1 && !r.siblings(found) {
		return
	}
	c.Entry, c.Missing = found[0], ""
	c.Cwd = path.Clean(strings.TrimSuffix(found[0], path.Clean(name)))
	if len(found) == 1 {
		c.Reasons = append(c.Reasons, fmt.Sprintf("%s is the only file of that name, so the command runs in %s", found[0], c.Cwd))
	} else {
		c.Reasons = append(c.Reasons, fmt.Sprintf("the command fits %s alike; it is taken to run in %s", strings.Join(found, " and "), c.Cwd))
	}
}

// siblings says that the files lie in two or three folders at the root that are
// parts of one project, each with the same program for its own domain.
func (r *resolver) siblings(files []string) bool {
	for _, p := range files {
		if strings.Count(p, "/") != 1 || vendored(r.f, p) {
			return false
		}
	}
	return len(files) <= 3
}

// similar is the one file beside the missing one whose name differs in at most
// two letters: a README that was not kept up with a renamed script.
func (r *resolver) similar(cwd, name string) string {
	dir, base := path.Split(path.Join(cwd, name))
	found := ""
	for _, f := range r.f.Files {
		d, b := path.Split(f.Path)
		if d != dir || f.Link || path.Ext(b) != path.Ext(base) || !near2(b, base) || !r.runnable(f.Path) {
			continue
		}
		if found != "" {
			return ""
		}
		found = f.Path
	}
	return found
}

// near2 says that two names of at least six letters differ by at most two edits.
func near2(a, b string) bool {
	if len(a) < 9 || len(b) < 9 || len(a)-len(b) > 2 || len(b)-len(a) > 2 {
		return false
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		prev := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := prev
			if a[i-1] != b[j-1] {
				cost = 1 + min(prev, row[j], row[j-1])
			}
			prev, row[j] = row[j], cost
		}
	}
	return row[len(b)] <= 2
}

func (r *resolver) replaceEntry(c *Command, name, p string) {
	rel := relTo(c.Cwd, p)
	for i, a := range c.Argv {
		if a == name {
			c.Argv[i] = rel
		}
	}
	after := strings.Replace(c.Display, name, rel, 1)
	c.Patches = append(c.Patches, spec.Patch{Kind: "flag", Line: c.Line, Before: c.Display, After: after,
		Reason: c.Missing + "; " + p + " is the only file there whose name is nearly the same"})
	c.Display, c.Entry, c.Missing, c.Quoted = after, p, "", false
}

var (
	setupRE      = regexp.MustCompile(`(?i)(?:^|[/_\-.])(?:prepare|preprocess\w*|preproc|pre_process\w*|tokeni[sz]e|(?:make|create|build|gen|generate)_(?:\w+_)?data\w*|convert\w*|process_data|data_prep\w*|get_data|setup_data|split_data|encode_data|extract_features)(?:[_\-.]|$|/)|(?:^|/)(?:[a-z0-9]+_)?datasets?(?:_tools?)?\.py$`)
	dataFolderRE = regexp.MustCompile(`(?i)(?:^|/)(?:data|datasets?|preprocess\w*|data_?prep\w*|prepare_data|data_processing)$`)
	downloadRE   = regexp.MustCompile(`(?i)(?:^|[/_\-.])(?:download|fetch|get_(?:data|dataset|transfer_data|model)|wget)`)
	blockingRE   = regexp.MustCompile(`(?i)(?:^|/)(?:app|server|serve|gradio\w*|streamlit\w*|webui|web_demo|\w*_server|\w*_app|demo_gradio|\w*real_robot\w*)\.(?:py|sh)$`)
	clusterRE    = regexp.MustCompile(`(?i)submitit|slurm|sbatch`)
	buildRE      = regexp.MustCompile(`(?i)(?:^|/)(?:install|setup|build|compile|make)\w*\.(?:sh|py)$`)
)

// role says what a resolved command is for.
func (r *resolver) role(c *Command) Role {
	if len(c.Argv) == 0 || len(c.Args) == 1 && (c.Args[0] == "--help" || c.Args[0] == "-h" || c.Args[0] == "--version") {
		return RoleOther
	}
	if inspect.ParseInstall(strings.Join(c.Argv, " ")) != nil {
		return RoleInstall
	}
	name := c.Entry
	if name == "" {
		name = c.Module
	}
	switch c.Program {
	case "sbatch", "srun", "salloc", "qsub", "bsub":
		return RoleCluster
	case "streamlit", "tensorboard", "flask", "uvicorn", "gunicorn", "gradio", "mlflow", "ollama", "vim", "nano", "htop", "watch", "docker", "nvidia-docker", "docker-compose", "kubectl", "ssh", "screen", "tmux":
		return RoleBlocking
	case "vllm", "sglang":
		return RoleBlocking
	case "wget", "curl", "gdown", "gsutil", "aws", "kaggle", "huggingface-cli", "hf", "rsync", "scp", "axel", "aria2c", "megadl", "git-lfs", "dvc":
		return RoleDownload
	case "unzip", "tar", "gunzip", "mkdir", "mv", "cp", "ln", "rm", "7z", "unrar":
		return RoleSetup
	case "conda", "mamba", "micromamba", "pip", "pip3", "uv", "poetry", "pdm", "pipenv", "source", "module", "brew", "apt", "apt-get", "cmake", "make", "sudo", "virtualenv", "pre-commit", "ninja", "gcc", "g++", "nvcc":
		return RoleInstall
	case "git", "cd", "ls", "export", "wandb", "cat", "echo", "chmod", "nvidia-smi", "which", "tree", "pwd", "exit", "find", "head", "tail", "grep", "black", "ruff", "flake8", "mypy", "isort":
		return RoleOther
	case "jupyter":
		if len(c.Args) > 0 && (c.Args[0] == "nbconvert" || c.Args[0] == "execute") && c.Entry != "" {
			return RoleRun
		}
		return RoleBlocking
	case "pytest", "tox", "nox":
		return RoleRun
	case "python":
		if c.Entry == "" && c.Missing == "" {
			return r.moduleRole(c)
		}
	case "papermill", "bash", "sh", "zsh", "lm_eval", "Rscript", "julia", "matlab":
	default:
		if !launchers[c.Program] && c.Entry == "" && c.Missing == "" {
			return RoleOther
		}
	}
	switch {
	case buildRE.MatchString(name) && c.Program != "python" || path.Base(name) == "setup.py":
		return RoleInstall
	case downloadRE.MatchString(name):
		return RoleDownload
	case setupRE.MatchString(name):
		return RoleSetup
	case dataFolderRE.MatchString(path.Dir(name)) && strings.HasSuffix(name, ".py") && !trains(r.f, c.Entry) && !evalRE.MatchString(path.Base(name)):
		return RoleSetup
	case clusterRE.MatchString(name) || r.isCluster(c.Entry):
		return RoleCluster
	case blockingRE.MatchString(name) || r.isBlocking(c.Entry):
		return RoleBlocking
	}
	return RoleRun
}

// moduleRole judges "python -m x" of a module that is not in the checkout, and
// "python -c".
func (r *resolver) moduleRole(c *Command) Role {
	switch {
	case c.Module == "unittest" || c.Module == "pytest" || c.Module == "timeit":
		return RoleRun
	case c.Module == "venv" || c.Module == "pip" || c.Module == "virtualenv" || c.Module == "ensurepip":
		return RoleInstall
	case c.Module == "http.server" || c.Module == "visdom.server" || c.Module == "jupyter":
		return RoleBlocking
	case strings.Contains(c.Module, "spacy") || strings.Contains(c.Module, "nltk"):
		return RoleDownload
	case len(c.Args) > 0 && c.Args[0] == "-c" && len(c.Args) > 1 && strings.Contains(c.Args[1], "download"):
		return RoleDownload
	}
	return RoleOther
}

// blockingCalls keep a process alive until a person ends it.
var blockingModules = map[string]bool{"gradio": true, "streamlit": true, "flask": true, "fastapi": true, "dash": true, "uvicorn": true, "bottle": true}

func (r *resolver) isBlocking(entry string) bool {
	m := r.f.Modules[entry]
	if m == nil {
		return false
	}
	serves := false
	for call := range m.Calls {
		serves = serves || strings.HasSuffix(call, ".launch") || strings.HasSuffix(call, ".run") || strings.HasSuffix(call, "serve_forever") || strings.HasPrefix(call, "st.")
	}
	for _, im := range m.Imports {
		top, _, _ := strings.Cut(im.Name, ".")
		if blockingModules[top] && !im.Guard && serves {
			return true
		}
	}
	return m.Calls["cv2.imshow"] > 0 && m.Calls["cv2.waitKey"] > 0
}

func (r *resolver) isCluster(entry string) bool {
	if m := r.f.Modules[entry]; m != nil {
		for _, im := range m.Imports {
			if (im.Name == "submitit" || strings.HasPrefix(im.Name, "submitit.")) && !im.Guard {
				return true
			}
		}
	}
	if s := r.f.Script(entry); s != nil && strings.Contains(s.Text, "#SBATCH") {
		return true
	}
	return false
}
