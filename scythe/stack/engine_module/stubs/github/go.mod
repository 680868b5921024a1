module github.com/google/go-github/v57

go 1.26
