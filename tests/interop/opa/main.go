// opa evaluates policies in Rego: one question in JSON on each line of its input, one answer on each of its output.
//
//	opa FOLDER < {"policy": "tokens_valid", "input": {...}}    answers true, false or error
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/open-policy-agent/opa/v1/rego"
)

type question struct {
	Policy string         `json:"policy"`
	Input  map[string]any `json:"input"`
}

func load(ctx context.Context, folder string) (map[string]rego.PreparedEvalQuery, error) {
	files, err := filepath.Glob(filepath.Join(folder, "*.rego"))
	if err != nil {
		return nil, err
	}
	found := map[string]rego.PreparedEvalQuery{}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".rego")
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		found[name], err = rego.New(
			rego.Query("data.nsmesh."+name+".valid"), rego.Module(file, string(text)),
		).PrepareForEval(ctx)
		if err != nil {
			return nil, err
		}
	}
	return found, nil
}

func answer(ctx context.Context, policies map[string]rego.PreparedEvalQuery, line []byte) string {
	var asked question
	if err := json.Unmarshal(line, &asked); err != nil {
		return "bent: " + err.Error()
	}
	query, there := policies[asked.Policy]
	if !there {
		return "no policy " + asked.Policy
	}
	results, err := query.Eval(ctx, rego.EvalInput(asked.Input))
	if err != nil {
		return "error"
	}
	return fmt.Sprint(results.Allowed())
}

func main() {
	ctx := context.Background()
	policies, err := load(ctx, os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 16<<20)
	out := bufio.NewWriter(os.Stdout)
	for lines.Scan() {
		fmt.Fprintln(out, answer(ctx, policies, lines.Bytes()))
		out.Flush()
	}
}
