// ProgramTemplate: the ChatTemplate over a parsed program.
#pragma once

#include <ctime>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lockstep/core/result.hpp"
#include "lockstep/model/chat_template.hpp"
#include "model/chat_template/syntax/ast.hpp"

namespace lockstep::model::chat {

class ProgramTemplate final : public ChatTemplate {
 public:
  /// `variables` are seen by every rendering: the special tokens.
  [[nodiscard]] static Result<std::unique_ptr<ProgramTemplate>> create(std::string_view source, std::string name,
                                                                       std::vector<std::pair<std::string, TemplateValue>> variables);

  [[nodiscard]] Result<std::string> render(const ChatInput& input) const override;
  /// With the time that strftime_now shows.
  [[nodiscard]] Result<std::string> render_at(const ChatInput& input, const std::tm& local_time) const;

 private:
  ProgramTemplate(Program program, std::vector<std::pair<std::string, TemplateValue>> variables);

  Program program_;
  std::vector<std::pair<std::string, TemplateValue>> variables_;
};

}  // namespace lockstep::model::chat
